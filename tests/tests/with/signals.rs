//! Exit codes, signals and ends: those of the command, and of dms-with itself.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use dms_tests::{Lab, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Job, command, file, with};

#[test]
fn the_exit_code_and_the_signal_are_those_of_the_command() {
    let lab = Lab::new();
    for code in [0, 1, 42, 100, 111, 255] {
        with(&lab, &format!("exit {code}")).expect(code);
    }
    // A run that was ended by a signal says 128 and its number.
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGHUP]
    {
        let ended = with(&lab, &format!("ulimit -c 0; kill -{} $$", signal as i32));
        ended.expect(128 + signal as i32);
    }
    run(&mut command(&lab, 1, "t1", &["/no/such/program"]), b"").expect(127);
    run(&mut command(&lab, 1, "t1", &["/"]), b"").expect(126);
    lab.assert_gone("t1");
    assert_eq!(lab.users("t1"), [0; 0]);
}

#[test]
fn what_dms_with_is_sent_the_command_gets_and_its_answer_counts() {
    let lab = Lab::new();
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGQUIT]
    {
        let number = signal as i32;
        let dies = Job::start(&lab, 1, "t1", "ulimit -c 0");
        assert!(lab.mounted("t1").is_some());
        dies.signal(signal);
        let ended = dies.wait();
        assert_eq!(ended.signal(), Some(number), "{ended:?}");
        lab.assert_gone("t1");

        let minds = Job::start(&lab, 1, "t1", &format!("trap 'exit {}' {number}", 10 + number));
        minds.signal(signal);
        assert_eq!(minds.wait().code(), Some(10 + number));
        lab.assert_gone("t1");
    }
}

#[test]
fn a_command_that_ignores_a_signal_goes_on_and_so_does_dms_with() {
    let lab = Lab::new();
    let job = Job::start(&lab, 1, "t1", "trap : TERM; trap '' INT");
    job.signal(Signal::SIGINT);
    job.signal(Signal::SIGHUP);
    // HUP comes after it, and ends it.
    assert_eq!(job.wait().signal(), Some(Signal::SIGHUP as i32));
    lab.assert_gone("t1");
    // What is ignored when it starts is ignored by the command, too.
    let script = format!(
        "trap '' HUP INT; exec dms-with {} -- sh -c 'kill -HUP $PPID $$; kill -INT $$; exit 9'",
        file(&lab, &[lab.request("mount", 1, "t1")])
    );
    lab.shell(&script).expect(9);
    lab.assert_gone("t1");
}

#[test]
fn a_signal_before_the_command_ends_the_wait_and_nothing_stays() {
    let lab = Lab::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let holder = lab.hold(&["target.t1"]);
        let job = Job::begin(&lab, 1, "t1", "");
        eventually("the pipeline waits", || {
            lab.processes().iter().any(|process| {
                process.stage() == Some("lock") && process.command.contains("--each")
            })
        });
        job.signal(signal);
        let up = job.up.clone();
        if signal == Signal::SIGKILL {
            assert_eq!(job.end().signal(), Some(signal as i32));
            holder.release();
        } else {
            // To make sure that nothing is mounted it asks, and needs the lock for that.
            holder.release();
            assert_eq!(job.end().signal(), Some(signal as i32));
        }
        assert!(!up.exists(), "the command was run");
        eventually("the pipeline has ended", || {
            lab.processes().iter().all(|process| process.stage() != Some("lock"))
        });
        lab.shell("dms-mount list | dms-ledger reconcile | dms-pipeline").expect(0);
        lab.assert_gone("t1");
        assert_eq!(lab.users("t1"), [0; 0]);
    }
}

#[test]
fn the_end_of_whoever_started_it_is_not_the_end_of_the_job() {
    let lab = Lab::new();
    let (up, go) = (lab.path("up"), lab.path("go"));
    let done = lab.path("done");
    lab.shell("mkfifo go").expect(0);
    let script = format!(
        "dms-with {} -- sh -c 'touch {}; read x <{}; touch \"$DMS_MOUNT_PATH/x\" {}' & wait",
        file(&lab, &[lab.request("mount", 1, "t1")]),
        up.display(),
        go.display(),
        done.display(),
    );
    let mut parent = lab.command("sh", &["-c", &script]).spawn().expect("there is a shell");
    eventually("the command runs", || up.exists());
    parent.kill().expect("it is ours");
    parent.wait().expect("it is ours");
    assert!(lab.mounted("t1").is_some());
    fs::write(&go, "go\n").expect("it reads");
    eventually("it is unmounted", || lab.mounted("t1").is_none() && lab.users("t1").is_empty());
    assert!(done.exists() && lab.object("x").exists());
    eventually("its directory is gone", || !lab.mount_point("t1").exists());
}

#[test]
fn what_a_killed_one_has_left_is_reconciled_when_its_command_has_ended_too() {
    let lab = Lab::new();
    let reconcile = "dms-mount list | dms-ledger reconcile | dms-pipeline";
    let mut job = Job::start(&lab, 1, "t1", "");
    let pid = Pid::from_raw(job.pid());
    job.child.kill().expect("it is ours");
    job.child.wait().expect("it is ours");
    // The command lives, and may be writing: its binding has somebody behind it.
    assert_eq!(lab.shell(reconcile).expect(0).stdout, "");
    assert_eq!(lab.users("t1"), [1]);
    assert_eq!(lab.shell("dms-ledger cleanup --hours 0 --json").expect(0).stdout, "");
    fs::write(lab.mount_point("t1").join("x"), "still here").expect("it is mounted");
    kill(pid, Signal::SIGKILL).expect("it lives");
    let mut said = lab.shell(reconcile);
    eventually("reconcile sees its end", || {
        if said.stdout.is_empty() {
            said = lab.shell(reconcile);
        }
        !said.stdout.is_empty()
    });
    assert_eq!(said.expect(0).line()["unmounted"], true, "{said}");
    assert!(
        said.stderr.contains("job 1 does not use target t1 any more: its dms-with has ended"),
        "{said}"
    );
    lab.assert_gone("t1");
    assert_eq!(lab.users("t1"), [0; 0]);
}

#[test]
fn the_next_job_of_the_target_does_not_count_a_dead_one() {
    let lab = Lab::new();
    let mut job = Job::start(&lab, 1, "t1", "");
    lab.mount(2, "t1");
    job.child.kill().expect("it is ours");
    job.child.wait().expect("it is ours");
    let answer = lab.send(&lab.request("unmount", 2, "t1"));
    // Its command lives yet.
    assert_eq!(answer["active_mounts_remaining"], 1, "{answer}");
    drop(job.stdin.take());
    let pid = job.pid();
    eventually("the command ends", || kill(Pid::from_raw(pid), None).is_err());
    lab.mount(2, "t1");
    let answer = lab.unmount(2, "t1");
    assert_eq!((answer["unmounted"].as_bool(), lab.users("t1")), (Some(true), vec![]), "{answer}");
    lab.assert_gone("t1");
    // And its own request finds what it has left.
    let mut job = Job::start(&lab, 1, "t1", "");
    job.child.kill().expect("it is ours");
    assert!(job.end().signal().is_some());
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
    lab.assert_gone("t1");
}
