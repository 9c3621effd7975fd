//! dms-lock in front of a command: flock(1)'s habits, and a lock that says who is alive.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Held, Lab, eventually, run, waits_for_lock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The two programs, asked for the same: dms-lock and the reference, on the same file.
fn both(lab: &Lab, options: &[&str], command: &[&str]) -> [Command; 2] {
    let mut ours = lab.command("dms-lock", options);
    ours.args(["x", "--"]).args(command);
    let mut flock = lab.command("flock", options);
    flock.arg(lab.path("lock/x.lock")).args(command);
    fs::create_dir_all(lab.path("lock")).expect("room for it");
    [ours, flock]
}

#[test]
fn it_excludes_as_flock_does_and_says_so_with_the_same_codes() {
    let lab = Lab::new();
    let busy: [&[&str]; 8] = [
        &["-n"],
        &["-w", "0"],
        &["-w", "0.05"],
        &["-s", "-n"],
        &["-x", "-n"],
        &["-n", "-E", "0"],
        &["-n", "-E", "255"],
        &["-w", "0.05", "-E", "75"],
    ];
    for mut holder in both(&lab, &[], &Held::SHELL) {
        let holder = Held::start(&mut holder);
        for options in busy {
            let [mut ours, mut flock] = both(&lab, options, &["true"]);
            let want = run(&mut flock, b"").code;
            run(&mut ours, b"").expect(want);
            let code = options.iter().position(|option| *option == "-E").map(|at| options[at + 1]);
            assert_eq!(want.to_string(), code.unwrap_or("1"), "{options:?}");
        }
        holder.release();
    }
    for mut holder in both(&lab, &["-s"], &Held::SHELL) {
        let holder = Held::start(&mut holder);
        for (options, code) in [(&["-s", "-n"][..], 0), (&["-s", "-w", "0"], 0), (&["-n"], 1)] {
            for mut command in both(&lab, options, &["true"]) {
                run(&mut command, b"").expect(code);
            }
        }
        holder.release();
    }
}

#[test]
fn the_commands_end_is_its_own() {
    let lab = Lab::new();
    for options in [&[][..], &["-o"], &["-E", "9"]] {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 1", 1), ("exit 255", 255)] {
            for mut command in both(&lab, options, &["sh", "-c", script]) {
                run(&mut command, b"").expect(code);
            }
        }
    }
    // A signal stays a signal, because the command stands in our place.
    let killed = run(&mut lab.command("dms-lock", &["--", "sh", "-c", "kill -KILL $$"]), b"");
    killed.expect(128 + 9);
    for mut command in both(&lab, &["-o"], &["sh", "-c", "kill -TERM $$"]) {
        run(&mut command, b"").expect(128 + 15);
    }
    let [mut ours, _] = both(&lab, &[], &["cat"]);
    assert_eq!(run(&mut ours, b"input").expect(0).stdout, "input");
    let nobody = lab.feed("dms-lock", &["--", "no-such-program"], "");
    nobody.expect(127);
    assert_eq!(
        nobody.stderr,
        "dms-lock: fatal: unable to run no-such-program: No such file or directory\n"
    );
    lab.feed("dms-lock", &["--", "/etc/passwd"], "").expect(126);
    assert_eq!(fs::read_dir(lab.path("lock/life")).expect("it is there").count(), 10, "of runs");
}

/// A command that leaves a process behind, which has all its descriptors.
const LEAVES: [&str; 3] = ["sh", "-c", "read x <hold &"];

#[test]
fn with_o_what_the_command_leaves_behind_does_not_keep_the_lock() {
    let lab = Lab::new();
    run(lab.command("mkfifo", &["hold"]).current_dir(lab.path("")), b"").expect(0);
    for (options, code) in [(&["-o"][..], 0), (&[], 1)] {
        for mut command in both(&lab, options, &LEAVES) {
            command.current_dir(lab.path("")).stdin(Stdio::null());
            assert!(command.status().expect("it is there").success());
            lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(code);
            // Its end.
            fs::write(lab.path("hold"), "\n").expect("it reads");
            lab.feed("dms-lock", &["-w", "30", "x", "--", "true"], "").expect(0);
        }
    }
}

#[test]
fn with_o_signals_go_to_the_command_and_the_lock_is_held_until_it_ends() {
    let lab = Lab::new();
    let script = "trap 'kill $!; echo told; read y; exit 5' TERM; sleep 60 & echo held; wait";
    let mut command = lab.command("dms-lock", &["-o", "x", "--", "sh", "-c", script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().and_then(Result::ok);
    assert_eq!(line().as_deref(), Some("held"));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    assert_eq!(line().as_deref(), Some("told"));
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(1);
    stdin.write_all(b"\n").expect("it reads");
    assert_eq!(child.wait().expect("it is ours").code(), Some(5));
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(0);
}

#[test]
fn a_signal_ends_the_wait_at_once_and_is_the_end() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    // Whoever waits for the lock, and whoever waits behind that one.
    let mut first = lab.command("dms-lock", &["x", "--", "true"]).spawn().expect("it was built");
    eventually("it waits", || waits_for_lock(first.id()));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        // Whoever runs the tests may ignore signals, as a shell has its background commands do.
        let args = ["--default-signal=INT,TERM", "dms-lock", "-s", "x", "--", "true"];
        let mut waiter = lab.command("env", &args).spawn().expect("it was built");
        eventually("it waits", || waits_for_lock(waiter.id()));
        kill(Pid::from_raw(waiter.id().cast_signed()), signal).expect("it runs");
        let end = waiter.wait().expect("it is ours");
        assert_eq!(end.signal(), Some(signal as i32), "{end}");
    }
    kill(Pid::from_raw(first.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    first.wait().expect("it is ours");
    holder.release();
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(0);
}

#[test]
fn a_blocked_alarm_does_not_make_the_wait_endless() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    let lock = dms_tests::bin_dir().join("dms-lock");
    let mut command = lab.command("env", &["--block-signal=ALRM"]);
    command.arg(lock).args(["-w", "0.1", "x", "--", "true"]);
    run(&mut command, b"").expect(1);
    holder.release();
}

#[test]
fn it_becomes_the_command_in_the_same_process() {
    let lab = Lab::new();
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", "echo $$"]);
    let child = command.stdout(Stdio::piped()).spawn().expect("it was built");
    let pid = child.id();
    let output = child.wait_with_output().expect("it is ours");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pid.to_string());
}

#[test]
fn usage_errors_are_100_and_help_is_0() {
    let lab = Lab::new();
    for args in [
        &[][..],
        &["x"],
        &["--"],
        &["-q", "--", "true"],
        &["-w", "soon", "--", "true"],
        &["-w", "-1", "--", "true"],
        &["-s", "-x", "--", "true"],
        &["-n", "-w", "1", "--", "true"],
        &["-E", "256", "--", "true"],
        &["-o", "--each", "--", "cat"],
        &["--list", "--", "true"],
        &["--json", "x", "--", "true"],
        &["--clear", "x"],
        &["--group", "no-such-group", "--", "true"],
        &["a/b", "--", "true"],
        &["..", "--", "true"],
        &["", "--", "true"],
    ] {
        let refused = lab.feed("dms-lock", args, "");
        refused.expect(100);
        assert!(refused.stderr.starts_with("dms-lock: fatal: "), "{args:?}: {refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert!(refused.stdout.is_empty());
    }
    for program in ["dms-lock", "dms-ledger", "dms-mount"] {
        let help = lab.feed(program, &["--help"], "");
        assert!(help.expect(0).stdout.contains("Usage") && help.stderr.is_empty(), "{help}");
        assert!(lab.feed(program, &["--version"], "").expect(0).stdout.starts_with(program));
    }
    let mut bad = lab.command("dms-lock", &["--", "true"]);
    let bad = run(bad.env("DMS_LOCK_TIMEOUT", "soon"), b"");
    assert!(bad.expect(100).stderr.contains("DMS_LOCK_TIMEOUT"), "{bad}");
}

#[test]
fn the_wait_has_a_bound_from_the_environment_and_the_message_says_how_long() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    let start = Instant::now();
    let mut command = lab.command("dms-lock", &["x", "--", "true"]);
    let refused = run(command.env("DMS_LOCK_TIMEOUT", "1"), b"");
    refused.expect(1);
    let who = format!("held by pid {} (sh -c echo held; read x) for 1 s", holder.pid());
    let want = format!("dms-lock: fatal: Could not acquire lock x after 1 seconds: {who}\n");
    assert_eq!(refused.stderr, want);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(10), "{waited:?}");
    holder.release();
}

#[test]
fn a_waiter_gets_the_lock_at_once_when_it_is_free() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    let mut command = lab.command("dms-lock", &["-w", "30", "x", "--", "true"]);
    let mut waiter = command.spawn().expect("it was built");
    eventually("it waits in the kernel", || waits_for_lock(waiter.id()));
    holder.release();
    assert!(waiter.wait().expect("it is ours").success());
}

#[test]
fn the_lock_stays_with_the_commands_children_when_the_wrapper_is_killed() {
    let lab = Lab::new();
    // In the background sh gives its children /dev/null: the pipe goes by another number.
    let script = "exec 3<&0; cat <&3 >/dev/null & echo held; wait";
    let holder = Held::start(&mut lab.command("dms-lock", &["x", "--", "sh", "-c", script]));
    let stdin = holder.kill();
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(1);
    drop(stdin);
    lab.feed("dms-lock", &["-w", "30", "x", "--", "true"], "").expect(0);
}

#[test]
fn several_names_in_any_order_do_not_deadlock() {
    let lab = Lab::new();
    thread::scope(|scope| {
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"], ["c", "a", "b"]] {
            let lab = &lab;
            scope.spawn(move || {
                for _ in 0..50 {
                    let args = [&["-w", "30"], &order[..], &["--", "true"]].concat();
                    lab.feed("dms-lock", &args, "").expect(0);
                }
            });
        }
    });
}

#[test]
fn a_removed_lock_file_is_harmless_and_a_planted_link_is_refused() {
    let lab = Lab::new();
    lab.feed("dms-lock", &["x", "--", "true"], "").expect(0);
    fs::remove_file(lab.path("lock/x.lock")).expect("nobody holds it");
    lab.feed("dms-lock", &["x", "--", "true"], "").expect(0);
    fs::remove_file(lab.path("lock/x.lock")).expect("nobody holds it");
    std::os::unix::fs::symlink(lab.path("victim"), lab.path("lock/x.lock")).expect("a fresh name");
    lab.feed("dms-lock", &["x", "--", "true"], "").expect(111);
    assert!(!lab.path("victim").exists());
}

#[test]
fn a_life_lock_is_free_as_soon_as_the_last_process_of_the_run_has_ended() {
    let lab = Lab::new();
    // Renamed, so that it is never seen empty.
    let script = "echo held; echo $DMS_LIFE_LOCK >life.new; mv life.new life; read x";
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", script]);
    let holder = Held::start(command.current_dir(lab.path("")));
    eventually("it says its life lock", || lab.path("life").exists());
    let life = fs::read_to_string(lab.path("life")).expect("it was written");
    let life = life.trim();
    assert!(life.starts_with(&lab.path("lock/life").display().to_string()), "{life}");
    let free =
        |life: &str| run(lab.command("flock", &["-n", life, "true"]).env_remove("x"), b"").code;
    assert_eq!(free(life), 1, "it can be taken while its run lives");
    holder.release();
    assert_eq!(free(life), 0, "its run has ended");
}
