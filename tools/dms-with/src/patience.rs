//! How often, and how long, to try.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use dms_wire::{Action, ErrorCode, Response};

/// How often a request is sent, at most.
const ATTEMPTS: u32 = 5;

/// The first pause, more or less; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);

/// The attempts at one request.
pub(crate) struct Patience {
    made: u32,
    begun: Instant,
    /// No attempt begins later than this.
    bound: Duration,
}

impl Patience {
    /// For requests that may take so long each.
    pub(crate) fn new(bound: Duration) -> Patience {
        Patience { made: 1, begun: Instant::now(), bound: bound * 2 }
    }

    /// How long to wait before another attempt; `None`: there have been enough.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        if self.made >= ATTEMPTS {
            return None;
        }
        let pause = PAUSE * 2_u32.pow(self.made - 1);
        // From half to one and a half: those who failed together do not come back together.
        let pause = pause.mul_f64(0.5 + chance());
        self.made += 1;
        (self.begun.elapsed() + pause < self.bound).then_some(pause)
    }
}

/// Whether trying again may help.
pub(crate) fn is_temporary(action: Action, answer: &Response) -> bool {
    match &answer.error_code {
        Some(
            ErrorCode::LockTimeout
            | ErrorCode::Busy
            | ErrorCode::Stale
            | ErrorCode::Timeout
            | ErrorCode::Database
            | ErrorCode::Broker
            | ErrorCode::NoListener
            | ErrorCode::Internal,
        ) => true,
        Some(ErrorCode::Unmount | ErrorCode::Other(_)) | None => action == Action::Unmount,
        Some(
            ErrorCode::Validation
            | ErrorCode::NoActiveMount
            | ErrorCode::Mount
            | ErrorCode::Credentials,
        ) => false,
    }
}

/// Whether the act may have happened, or may have been recorded, all the same. Then it is repeated
/// as the same request, or undone.
pub(crate) fn is_unknown(answer: &Response) -> bool {
    let code = answer.error_code.as_ref();
    code.is_none_or(|code| code.leaves_outcome_unknown() || *code == ErrorCode::Database)
}

/// From 0 to 1.
fn chance() -> f64 {
    // What keys of hash tables are made of.
    f64::from(u16::try_from(RandomState::new().hash_one(0) >> 48).unwrap_or_default()) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_come_to_an_end() {
        let mut patience = Patience::new(Duration::from_secs(300));
        let pauses: Vec<Duration> = std::iter::from_fn(|| patience.pause()).collect();
        assert_eq!(pauses.len(), 4);
        for (number, pause) in pauses.iter().enumerate() {
            let middle = PAUSE * (1 << number);
            assert!(*pause >= middle / 2 && *pause < middle * 3 / 2, "{pauses:?}");
        }
        assert_eq!(Patience::new(Duration::from_millis(1)).pause(), None);
    }

    #[test]
    fn a_failed_mount_is_final_and_a_failed_unmount_is_tried_again() {
        let failed = |code| Response::error(code, "x");
        assert!(!is_temporary(Action::Mount, &failed(ErrorCode::Mount)));
        assert!(!is_temporary(Action::Mount, &failed(ErrorCode::Credentials)));
        assert!(is_temporary(Action::Mount, &failed(ErrorCode::NoListener)));
        assert!(is_temporary(Action::Unmount, &failed(ErrorCode::Unmount)));
        assert!(!is_temporary(Action::Unmount, &failed(ErrorCode::NoActiveMount)));
        assert!(is_unknown(&failed(ErrorCode::Timeout)) && !is_unknown(&failed(ErrorCode::Busy)));
    }
}
