//! A look at many processes, some of which hang.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a look at one process may take until another thread goes on with the next.
const LOOK: Duration = Duration::from_millis(20);

/// More processes than that do not hang: then the scan fails.
const STUCK: usize = 100;

/// For so many looks nobody answers any more, when all have been asked.
const QUIET: usize = 10;

/// How long all of it may take.
pub(super) const LONGEST: Duration = Duration::from_secs(3);

/// What is looked at, by one thread or more.
struct Work<T, L> {
    pids: Vec<i32>,
    begun: AtomicUsize,
    over: AtomicUsize,
    found: Mutex<Vec<T>>,
    look: L,
}

impl<T, L: Fn(i32) -> Option<T>> Work<T, L> {
    /// Looks at whatever nobody looks at; tells when the last look is over.
    fn go_on(&self, tell: &Sender<()>) {
        while let Some(&pid) = self.pids.get(self.begun.fetch_add(1, Ordering::Relaxed)) {
            if let Some(seen) = (self.look)(pid) {
                self.found.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
            if self.over.fetch_add(1, Ordering::AcqRel) + 1 == self.pids.len() {
                let _ = tell.send(());
            }
        }
    }
}

/// What there is to be seen of each of the processes, nothing of one that hangs; and whether none
/// does. `None`: too many hang to look at them all.
pub(super) fn each<T: Send + 'static>(
    pids: Vec<i32>,
    look: impl Fn(i32) -> Option<T> + Send + Sync + 'static,
) -> Option<(Vec<T>, bool)> {
    let (begun, over, found) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
    let work = Arc::new(Work { pids, begun, over, found, look });
    let (tell, told) = channel();
    let start = || {
        let (work, tell) = (Arc::clone(&work), tell.clone());
        thread::spawn(move || work.go_on(&tell));
    };
    start();
    let (mut over, mut threads, mut quiet) = (0, 1, 0);
    // When all are begun and nobody gets to an end any more, those that are left hang.
    while over < work.pids.len() && quiet < QUIET {
        let _ = told.recv_timeout(LOOK);
        let before = over;
        over = work.over.load(Ordering::Acquire);
        let are_all_begun = work.begun.load(Ordering::Relaxed) >= work.pids.len();
        match (over > before, are_all_begun) {
            (true, _) => quiet = 0,
            (false, true) => quiet += 1,
            (false, false) if threads < STUCK => {
                threads += 1;
                start();
            }
            (false, false) => return None,
        }
    }
    let mut found = work.found.lock().unwrap_or_else(PoisonError::into_inner);
    Some((std::mem::take(&mut found), over == work.pids.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_does_not_end_keeps_nobody_waiting_for_the_others() {
        let found = each((1..200).collect(), |pid| {
            if pid % 50 == 0 {
                thread::sleep(Duration::from_secs(60));
            }
            (pid % 2 == 1).then_some(pid)
        });
        assert_eq!(found.map(|(found, is_over)| (found.len(), is_over)), Some((100, false)));
    }

    #[test]
    fn a_slow_machine_loses_nobody() {
        let found = each((0..20).collect(), |pid| {
            thread::sleep(LOOK * 2);
            Some(pid)
        });
        assert_eq!(found.map(|(found, is_over)| (found.len(), is_over)), Some((20, true)));
    }

    #[test]
    fn where_too_many_hang_nothing_is_said_of_the_others() {
        let hang = |pid| {
            thread::sleep(Duration::from_secs(60));
            Some(pid)
        };
        assert_eq!(each((0..1000).collect(), hang), None);
    }

    #[test]
    fn nobody_is_looked_for_and_nobody_is_found() {
        assert_eq!(each(Vec::new(), Some), Some((Vec::new(), true)));
    }
}
