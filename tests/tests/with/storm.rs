//! A storm: many at once, on a few targets, and some of them killed, at any moment.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Dice, Lab, eventually, is_long_run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Job;

const JOBS: i32 = 100;
const TARGETS: i32 = 5;

/// What happens to one of them.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The command ends by itself.
    Exits(i32),
    /// The command is sent this, when it runs.
    CommandGets(Signal),
    /// dms-with is sent this, so long after its start.
    Gets(Signal, Duration),
}

fn fate(dice: &mut Dice) -> Fate {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL];
    let signal = signals[usize::try_from(dice.below(3)).expect("a small number")];
    match dice.below(3) {
        0 => Fate::Exits(i32::try_from(dice.below(100)).expect("a small number")),
        1 => Fate::CommandGets(signal),
        // From before the pipeline has started to when the command has run for long.
        _ => {
            let bound = 1 << (1 + dice.below(14));
            Fate::Gets(signal, Duration::from_millis(dice.below(bound)))
        }
    }
}

/// One job, to its end. Whether its command has run.
fn live(lab: &Lab, job: i32, fate: Fate) -> bool {
    let target = format!("t{}", job % TARGETS);
    let code = if let Fate::Exits(code) = fate { code } else { 0 };
    let script =
        format!("trap 'exit {code}' EXIT; echo x >\"$DMS_MOUNT_PATH/job-{job}\" || exit 99");
    let mut started = Job::begin(lab, job, &target, &script);
    let mut has_run = || started.up.exists() || !matches!(started.child.try_wait(), Ok(None));
    let wait = |has_run: &mut dyn FnMut() -> bool| {
        let end = Instant::now() + Duration::from_secs(300);
        while !has_run() {
            assert!(Instant::now() < end, "job {job} does not come to run");
            thread::sleep(Duration::from_millis(5));
        }
    };
    match fate {
        Fate::Exits(_) => wait(&mut has_run),
        Fate::CommandGets(signal) => {
            wait(&mut has_run);
            kill(Pid::from_raw(started.pid()), signal).expect("it waits for its input");
        }
        Fate::Gets(signal, moment) => {
            thread::sleep(moment);
            started.signal(signal);
        }
    }
    let (up, log) = (started.up.clone(), started.up.with_extension("log"));
    let ended = match fate {
        Fate::Exits(_) => started.end(),
        Fate::CommandGets(_) | Fate::Gets(..) => started.wait(),
    };
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    match fate {
        Fate::Exits(code) => assert_eq!(ended.code(), Some(code), "job {job}: {ended}\n{}", log()),
        Fate::CommandGets(signal) | Fate::Gets(signal, _) => {
            let right = ended.signal() == Some(signal as i32);
            assert!(right, "job {job}, {fate:?}: {ended}\n{}", log());
        }
    }
    up.exists()
}

#[test]
fn a_storm_leaves_nothing_mounted_and_every_exit_code_is_right() {
    let lab = Lab::new();
    let rounds = if is_long_run() { 5 } else { 1 };
    let begun = Instant::now();
    let mut run = 0;
    for round in 0..rounds {
        let mut dice = Dice::new(8 + round);
        let jobs: Vec<(i32, Fate)> = (0..JOBS).map(|job| (job, fate(&mut dice))).collect();
        let lived: Vec<bool> = thread::scope(|scope| {
            let lab = &lab;
            let start = |&(job, fate)| scope.spawn(move || live(lab, job, fate));
            let running: Vec<_> = jobs.iter().map(start).collect();
            running.into_iter().map(|job| job.join().expect("its end was right")).collect()
        });
        run += lived.iter().filter(|&&ran| ran).count();
        // A pipeline that has lost its dms-with ends with its request.
        eventually("the pipelines have ended", || {
            lab.processes().iter().all(|process| process.stage().is_none())
        });
        let reconciled = lab.shell("dms-mount list | dms-ledger reconcile | dms-pipeline");
        reconciled.expect(0);
        for target in 0..TARGETS {
            lab.assert_gone(&format!("t{target}"));
        }
        assert_eq!(lab.shell("dms-ledger list --json").expect(0).stdout, "");
        lab.shell("dms-mount list | dms-ledger audit").expect(0);
        let open = lab.shell("dms-ledger history --json --status pending");
        assert_eq!(open.expect(0).stdout, "");
    }
    let text = format!(
        "{rounds} x {JOBS} at once on {TARGETS} targets: {run} commands ran, {:?}",
        begun.elapsed()
    );
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    assert!(run > 30, "{text}");
}
