//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest wait. All nodes of a cluster are back this long after their broker.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits that grow, each somewhere between half and whole, so that the nodes of a cluster do not
/// all come at once when their broker comes back.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Backoff {
        let first = first.clamp(Duration::from_millis(10), LONGEST);
        Backoff { first, next: first }
    }

    /// How long to wait now.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait / 2 + wait.mul_f64(chance()) / 2
    }

    /// It was connected: the next wait is a short one again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random number from 0 to 1, from the seed that the standard library takes for its hash maps.
fn chance() -> f64 {
    let random = RandomState::new().hash_one(0);
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for whole in [1, 2, 4, 8, 10, 10] {
            let whole = Duration::from_secs(whole);
            let wait = backoff.wait();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn no_two_waits_are_alike() {
        let waits: Vec<_> = (0..10).map(|_| Backoff::new(Duration::from_secs(5)).wait()).collect();
        assert!(waits.iter().any(|wait| wait.abs_diff(waits[0]) > Duration::from_millis(10)));
    }
}
