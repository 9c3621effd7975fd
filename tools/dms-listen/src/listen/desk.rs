//! Where the threads meet: whoever has something to tell of a request decides on the spot what is next, so
//! that no message waits for a thread in between.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

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
