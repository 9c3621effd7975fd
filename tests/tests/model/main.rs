//! Scripts of requests, crashes and repeats, made by chance, on a real node: after each step,
//! answers, ledger and kernel are as the pages promise.
//!
//! Of a script that fails, the shortest that still does is printed, as the expression that makes
//! it; `DMS_TEST_SEED` plays the whole one again.

mod node;
mod play;
mod promise;
mod promise_tests;
mod script;

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, Instant};

use dms_tests::is_long_run;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::play::{Figures, play};
use crate::script::{Step, Victim, again, mount, requests, scripts, unmount};

/// How many scripts there have to be, however long they take.
const SCRIPTS: u64 = 3;

/// How long to make new scripts.
fn budget() -> Duration {
    Duration::from_secs(if is_long_run() { 600 } else { 35 })
}

/// Plays the script that this number makes.
#[track_caller]
fn play_seed(seed: u64, figures: &RefCell<Figures>) {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 150,
        max_shrink_time: 180_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&scripts(), |steps| {
        play(&steps, &mut figures.borrow_mut()).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(why, steps)) = outcome {
        panic!("DMS_TEST_SEED={seed}: {why}\nthe shortest script that failed: {steps:#?}");
    }
    outcome.expect("no script is rejected");
}

#[test]
fn any_interleaving_of_requests_crashes_and_repeats_keeps_the_promises() {
    let figures = RefCell::default();
    if let Ok(seed) = std::env::var("DMS_TEST_SEED") {
        play_seed(seed.parse().expect("a number"), &figures);
        return;
    }
    // Other scripts on the other engine.
    let first = if std::env::var_os("DMS_TEST_DB").is_some() { 1_000_000 } else { 0 };
    let end = Instant::now() + budget();
    for seed in first.. {
        // A busy machine is given the time that it needs.
        if Instant::now() >= end && figures.borrow().scripts >= SCRIPTS {
            break;
        }
        play_seed(seed, &figures);
    }
    let figures = figures.into_inner();
    let _ = writeln!(std::io::stderr().lock(), "{figures:?}");
    assert!(figures.unanswered >= SCRIPTS, "too few cuts hit a request: {figures:?}");
}

/// Plays the script that somebody has written down.
#[track_caller]
fn play_script(script: &[Step], figures: &mut Figures) {
    play(script, figures).unwrap_or_else(|why| panic!("{why}: {script:#?}"));
}

#[test]
fn a_request_that_is_cut_anywhere_and_comes_again_is_done_once() {
    let mut figures = Figures::default();
    for percent in (0..120).step_by(24) {
        let script = [
            requests(0, [mount(1, 0)]),
            requests(0, [unmount(1, 0).cut(Victim::All, percent)]),
            requests(1, [again(0)]),
            requests(0, [unmount(1, 0).cut(Victim::Plan, percent)]),
            requests(1, [mount(1, 0), mount(2, 0)]).beside_reconcile(),
            requests(0, [again(1).cut(Victim::Mount, percent)]),
            requests(1, [again(2)]),
            Step::Reconcile,
        ];
        play_script(&script, &mut figures);
    }
    assert!(figures.unanswered > 0, "{figures:?}");
}

#[test]
fn a_request_that_is_taken_for_dead_and_goes_on_changes_nothing() {
    let late = |act: script::Act| act.cut(Victim::Late, 0);
    let script = [
        requests(0, [mount(1, 0)]),
        requests(0, [late(unmount(1, 0)), mount(2, 0)]),
        requests(0, [late(mount(1, 0)), unmount(2, 0)]),
        requests(0, [late(mount(1, 0)), mount(2, 0)]),
        // One that is not in the way may go on.
        requests(0, [late(mount(3, 0)), mount(2, 1)]),
        requests(0, [late(unmount(2, 1)), late(mount(3, 1)), mount(4, 1)]),
        requests(0, [again(1), again(2), again(3)]),
    ];
    let mut figures = Figures::default();
    play_script(&script, &mut figures);
    assert!(figures.unanswered >= 5, "{figures:?}");
}

#[test]
fn a_request_that_comes_again_after_its_job_has_gone_on_changes_nothing() {
    let script = [
        requests(0, [mount(1, 0)]),
        requests(0, [unmount(1, 0)]),
        // The mount is late; then the unmount is.
        requests(1, [again(1)]),
        requests(0, [mount(1, 0)]),
        requests(1, [again(1)]),
        // The same of an unmount whose outcome nobody knows.
        requests(0, [unmount(1, 0).cut(Victim::Late, 0), mount(2, 0)]),
        requests(0, [mount(1, 0)]),
        requests(1, [again(2)]),
        requests(1, [unmount(2, 0)]),
        requests(1, [again(3)]),
    ];
    play_script(&script, &mut Figures::default());
}
