//! When the thread that watches over the requests is woken, and when it sleeps.

use crossbeam_channel::Sender;

use crate::listen::Event;

/// Who looks at the requests from time to time, and sleeps while nothing happens to them.
pub(crate) struct Watch {
    events: Sender<Event>,
    is_awake: bool,
    has_news: bool,
    /// Each change is told, and at once.
    pub(crate) tells_each: bool,
}

impl Watch {
    /// It is woken by [`Event::Changed`].
    pub(crate) fn new(events: Sender<Event>) -> Watch {
        Watch { events, is_awake: false, has_news: false, tells_each: false }
    }

    /// Something has changed.
    pub(crate) fn tell(&mut self) {
        self.has_news = true;
        if !self.is_awake || self.tells_each {
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
        watch.tells_each = true;
        watch.tell();
        watch.tell();
        assert_eq!(told.try_iter().count(), 2);
    }
}
