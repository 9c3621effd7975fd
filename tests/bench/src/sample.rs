//! Times of one thing, taken many times, and of two things in turns.

use std::time::{Duration, Instant};

/// Times in milliseconds, sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// The part of them that is given in percent took no longer than this.
    pub(crate) fn part(&self, percent: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        // Nearest rank: of a hundred, the ninety-ninth.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let at = ((self.0.len() as f64) * percent / 100.0).ceil() as usize;
        self.0.get(at.saturating_sub(1).min(last)).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.part(50.0)
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(times: I) -> Sample {
        let mut times: Vec<f64> = times.into_iter().collect();
        times.sort_unstable_by(f64::total_cmp);
        Sample(times)
    }
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long this takes, in milliseconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    let _done = work();
    millis(begun.elapsed())
}

/// Measures these so many times, in turns, so that whatever else the machine does, it does to all;
/// each round begins with another one. What a first round finds cold does not count.
pub(crate) fn in_turns<const N: usize>(
    rounds: usize,
    contenders: &mut [&mut dyn FnMut() -> f64; N],
) -> [Sample; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        for turn in 0..N {
            let which = (round + turn) % N;
            let took = contenders[which]();
            if round > 0 {
                times[which].push(took);
            }
        }
    }
    times.map(|times| times.into_iter().collect())
}
