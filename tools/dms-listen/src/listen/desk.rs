//! Where the threads meet: whoever has something to tell of a request decides on the spot what is next, so
//! that no message waits for a thread in between.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::Sender;

use crate::listen::Event;
use crate::listen::requests::Requests;
use crate::listen::worker::Worker;

/// Starts a worker of this number.
pub(crate) type Hire = Box<dyn Fn(usize) -> io::Result<Worker> + Send>;

/// The requests, for every thread.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Mutex<Requests>>);

impl Desk {
    /// `make` is given who starts a worker; `start` starts one, which comes back to this desk.
    pub(crate) fn new(
        start: impl Fn(usize, Desk) -> io::Result<Worker> + Send + 'static,
        make: impl FnOnce(Hire) -> Requests,
    ) -> Desk {
        Desk(Arc::new_cyclic(|desk| {
            let desk = desk.clone();
            let hire = move |number| {
                let desk = desk.upgrade().ok_or(io::ErrorKind::NotFound)?;
                start(number, Desk(desk))
            };
            Mutex::new(make(Box::new(hire)))
        }))
    }

    /// Nobody may keep it longer than it takes to decide: no waiting for anything.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Requests> {
        // What was left half decided is nothing to go on with: the service manager starts us anew, and the
        // broker hands out again what was not answered.
        self.0.lock().unwrap_or_else(|_| std::process::abort())
    }
}

/// Who looks at the requests from time to time, and sleeps while nothing happens to them.
pub(crate) struct Watch {
    events: Sender<Event>,
    is_awake: bool,
    has_news: bool,
    /// Each change is told, and at once.
    pub(crate) is_close: bool,
}

impl Watch {
    /// It is woken by [`Event::Changed`].
    pub(crate) fn new(events: Sender<Event>) -> Watch {
        Watch { events, is_awake: false, has_news: false, is_close: false }
    }

    /// Something has changed.
    pub(crate) fn tell(&mut self) {
        self.has_news = true;
        if !self.is_awake || self.is_close {
            self.is_awake = true;
            // Nobody listens any more only when the process ends.
            let _ = self.events.send(Event::Changed);
        }
    }

    /// Whether there is to be another look without being woken.
    pub(crate) fn is_awake(&self) -> bool {
        self.is_awake
    }

    /// It has looked. If nothing has changed since the last time, it sleeps.
    pub(crate) fn rest(&mut self) {
        self.is_awake = std::mem::take(&mut self.has_news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn it_is_woken_once_and_sleeps_when_nothing_has_changed_between_two_looks() {
        let (tell, told) = unbounded();
        let mut watch = Watch::new(tell);
        watch.tell();
        watch.tell();
        assert_eq!(told.try_iter().count(), 1);
        watch.rest();
        watch.tell();
        assert_eq!((watch.is_awake(), told.try_iter().count()), (true, 0));
        watch.rest();
        watch.rest();
        assert!(!watch.is_awake());
        watch.tell();
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn who_waits_for_the_end_is_told_each_time() {
        let (tell, told) = unbounded();
        let mut watch = Watch::new(tell);
        watch.is_close = true;
        watch.tell();
        watch.tell();
        assert_eq!(told.try_iter().count(), 2);
    }
}
