//! The one clock of a run: seconds that all processes of the machine count alike, whatever is done to
//! the time of day.

use nix::time::{ClockId, clock_gettime};

/// Now, in seconds since the machine has booted.
pub(crate) fn now() -> f64 {
    // CLOCK_MONOTONIC is always there.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(0.0, |time| std::time::Duration::from(time).as_secs_f64())
}
