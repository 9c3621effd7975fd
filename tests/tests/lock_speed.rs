//! How quick dms-lock is beside flock(1), in one run: the release build, since that is what users
//! have.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dms_tests::{Taker, Takers, bin_dir, is_long_run};

/// How much longer than flock(1) it may take.
const LIMIT: f64 = 1.1;

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The release build, beside the build under test.
fn release() -> PathBuf {
    let path = bin_dir().with_file_name("release").join("dms-lock");
    let what = "cargo build --release -p dms-lock";
    assert!(path.exists(), "{} is not there: {what}", path.display());
    path
}

fn part(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The times of each taker, sorted; measured in turns, so that whatever else the machine does, it
/// does to all; each round begins with another, since one leaves the processors as the next finds them.
fn in_turns<const N: usize>(
    rounds: usize,
    takers: [Taker; N],
    measure: impl Fn(Taker) -> Duration,
) -> [Vec<Duration>; N] {
    let mut times = takers.map(|_| Vec::with_capacity(rounds));
    for round in 0..rounds {
        for turn in 0..N {
            let which = (round + turn) % N;
            times[which].push(measure(takers[which]));
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    times
}

/// Measures until the ratio is what it has to be, three times at most: on a busy machine the
/// quietest of three says most about the takers.
#[track_caller]
fn within_limit(what: &str, measure: impl Fn() -> (f64, String)) {
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let (ratio, text) = measure();
        tell(&format!("{what}: {text}: {ratio:.3} times"));
        if ratio <= LIMIT {
            return;
        }
        ratios.push(ratio);
    }
    panic!("{what}: {ratios:?} times what flock(1) takes");
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

fn rounds(short: usize) -> usize {
    if is_long_run() { short * 5 } else { short }
}

#[test]
fn a_free_lock_costs_no_more_than_with_flock() {
    let takers = Takers::new(release());
    let order = [Taker::Flock, Taker::Ours, Taker::Nothing];
    within_limit("a free lock", || {
        let times = in_turns(rounds(200), order, |taker| takers.whole(taker));
        let [theirs, ours, bare] = times.map(|times| part(&times, 50));
        let text = format!("true alone {bare:?}, with flock(1) {theirs:?}, with ours {ours:?}");
        (ratio(ours, theirs), text)
    });
    // flock(1) starts the command before it waits for its end: of that its user sees nothing.
    let times = in_turns(rounds(200), order, |taker| takers.start_to_word(taker));
    let [theirs, ours, bare] = times.map(|times| part(&times, 50));
    let ratio = ratio(ours, theirs);
    tell(&format!(
        "until the command's first word: echo alone {bare:?}, with flock(1) {theirs:?}, with ours \
         {ours:?}: {ratio:.3} times"
    ));
}

#[test]
fn a_crowd_gets_through_as_quickly_as_with_flock() {
    let takers = Takers::new(release());
    for many in [10, 50, 100] {
        within_limit(&format!("{many} at once"), || {
            let order = [Taker::Flock, Taker::Ours];
            let times = in_turns(rounds(7), order, |taker| takers.crowd(taker, many));
            let [theirs, ours] = times.map(|times| part(&times, 50));
            (ratio(ours, theirs), format!("with flock(1) {theirs:?}, with ours {ours:?}"))
        });
    }
}

#[test]
fn a_lock_is_handed_over_as_quickly_as_with_flock() {
    let takers = Takers::new(release());
    within_limit("hand-over", || {
        let order = [Taker::Flock, Taker::Ours];
        let times = in_turns(rounds(100), order, |taker| takers.hand_over(taker));
        let [theirs, ours] = times.map(|times| (part(&times, 50), part(&times, 99)));
        let text = format!(
            "p50 and p99 with flock(1) {:?} and {:?}, with ours {:?} and {:?}",
            theirs.0, theirs.1, ours.0, ours.1
        );
        (ratio(ours.0, theirs.0), text)
    });
}
