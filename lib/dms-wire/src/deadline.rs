//! A moment after which no stage starts anything.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Seconds of `CLOCK_BOOTTIME` on this host: a clock that all processes of a host share, that
/// nobody can set, and that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Deadline(f64);

impl Deadline {
    /// From the wire's number of seconds; `None` if that is no moment at all (NaN, negative).
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        (seconds.is_finite() && seconds >= 0.0).then_some(Deadline(seconds))
    }

    /// This long from now.
    pub fn after(wait: Duration) -> Self {
        Deadline(now() + wait.as_secs_f64())
    }

    /// Seconds of `CLOCK_BOOTTIME`, as they stand on the wire.
    pub fn seconds(self) -> f64 {
        self.0
    }

    /// What is left; zero once it has passed. Never more than a year, so that it can be added to
    /// any clock.
    pub fn left(self) -> Duration {
        const YEAR: f64 = 365.0 * 86_400.0;
        Duration::from_secs_f64((self.0 - now()).clamp(0.0, YEAR))
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Deadline) -> Deadline {
        if other.0 < self.0 { other } else { self }
    }
}

fn now() -> f64 {
    // CLOCK_BOOTTIME has been there since Linux 2.6.39: reading it cannot fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes() {
        assert!(Deadline::after(Duration::ZERO).passed());
        let later = Deadline::after(Duration::from_secs(60));
        assert!(!later.passed() && later.left() <= Duration::from_secs(60));
        assert!(later.min(Deadline::after(Duration::ZERO)).passed());
    }

    #[test]
    fn a_number_that_is_no_moment_is_refused() {
        assert_eq!(Deadline::from_seconds(f64::NAN), None);
        assert_eq!(Deadline::from_seconds(-1.0), None);
        assert!(Deadline::from_seconds(1e300).is_some_and(|d| !d.left().is_zero()));
    }
}
