//! dms-lock below dms-lock: what an ancestor holds is not waited for, and nobody is believed who
//! only says so.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dms_tests::{Held, Lab, eventually, run, waits_for_lock};
use serde_json::json;

fn request(target: &str) -> String {
    format!("{}\n", json!({"backup_target": {"id": target}}))
}

#[test]
fn what_an_ancestor_holds_is_had_at_once_at_any_depth() {
    let lab = Lab::new();
    let script = "dms-lock -n x -- dms-lock -n y x -- dms-lock -n x y -- echo in &&
        ! dms-lock -n no -- false && flock -n lock/x.lock true; echo $?";
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", script]);
    let nested = run(command.current_dir(lab.path("")), b"");
    // The last one is not nested in the sense of dms-lock: the lock is held all the while.
    assert_eq!(nested.expect(0).stdout, "in\n1\n");
    lab.feed("dms-lock", &["-n", "x", "y", "--", "true"], "").expect(0);
}

#[test]
fn the_end_of_a_nested_one_leaves_the_outer_lock_and_the_end_of_the_outer_one_the_nested() {
    let lab = Lab::new();
    run(lab.command("mkfifo", &["hold"]).current_dir(lab.path("")), b"").expect(0);
    let script =
        "dms-lock -n x -- true; echo held; read x; dms-lock -n x -- sh -c 'read y <hold' &";
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", script]);
    let outer = Held::start(command.current_dir(lab.path("")));
    // The nested one has ended, and the lock is held.
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(1);
    outer.release();
    // The outer one has ended, and the nested one goes on.
    lab.feed("dms-lock", &["-n", "x", "--", "true"], "").expect(1);
    fs::write(lab.path("hold"), "\n").expect("it reads");
    lab.feed("dms-lock", &["-w", "30", "x", "--", "true"], "").expect(0);
}

#[test]
fn children_of_one_holder_exclude_each_other_and_share_what_they_want_shared() {
    let lab = Lab::new();
    let both = |options: &str| {
        let nested = format!("dms-lock {options} x -- sh -c 'echo held; read y <$0'");
        // One has it; then the other tries.
        format!(
            "mkfifo a; ({nested} a &) | read z; dms-lock {options} -n x -- true; echo $?; echo >a"
        )
    };
    for (outer, options, want) in [("-x", "-x", "1\n"), ("-x", "-s", "0\n"), ("-s", "-s", "0\n")] {
        let mut command = lab.command("dms-lock", &[outer, "x", "--", "sh", "-c", &both(options)]);
        let run = run(command.current_dir(lab.path("")), b"");
        assert_eq!(run.expect(0).stdout, want, "{outer} {options}: {run}");
        lab.feed("dms-lock", &["-w", "30", "x", "--", "true"], "").expect(0);
        fs::remove_file(lab.path("a")).expect("it was made");
    }
}

#[test]
fn what_is_held_shared_cannot_be_had_exclusive_below() {
    let lab = Lab::new();
    for nested in ["dms-lock -w 30 x -- true", "dms-lock -s x -- dms-lock -w 30 x -- true"] {
        let run = lab.feed("dms-lock", &["-s", "x", "--", "sh", "-c", nested], "");
        assert_eq!(
            run.expect(100).stderr,
            "dms-lock: fatal: lock x is held shared around this, and cannot be had exclusive\n"
        );
    }
    // Below one that has it exclusive, a shared one is the deepest that counts.
    let nested = "dms-lock -s x -- dms-lock -w 30 x -- true";
    lab.feed("dms-lock", &["x", "--", "sh", "-c", nested], "").expect(100);
    lab.feed("dms-lock", &["x", "--", "dms-lock", "-n", "-s", "x", "--", "true"], "").expect(0);
}

#[test]
fn nobody_is_let_in_for_an_environment() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    let environ = fs::read_to_string(format!("/proc/{}/environ", holder.pid()));
    let environ = environ.expect("it runs");
    let held = environ.split('\0').find_map(|word| word.strip_prefix("DMS_HELD_LOCKS="));
    let held = held.expect("it is told");
    assert!(held.starts_with("fd="), "{held}");
    let number = held.trim_start_matches("fd=");
    let lock = dms_tests::bin_dir().join("dms-lock").display().to_string();
    for opened in [
        // The holder's words, and nothing behind them.
        String::new(),
        // The very file, not locked; locked by nobody; another file.
        format!("exec {number}<lock/x.lock;"),
        format!("exec {number}<>lock/y.lock; flock -n {number};"),
        format!("exec {number}</dev/null;"),
    ] {
        // dash has single digits only.
        let script = format!("{opened} exec {lock} -n x -- true");
        let mut command = lab.command("bash", &["-c", &script]);
        let run = run(command.current_dir(lab.path("")).env("DMS_HELD_LOCKS", held), b"");
        run.expect(1);
    }
    // Nor for a descriptor of a file that is not the lock any more.
    holder.release();
    let script = "mv lock/x.lock lock/old; dms-lock -w 30 x -- true; flock lock/x.lock \
        dms-lock -n x -- true; echo $?";
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", script]);
    assert_eq!(run(command.current_dir(lab.path("")), b"").expect(0).stdout, "1\n");
}

#[test]
fn a_command_without_the_descriptors_waits_like_anybody_and_is_told_for_whom() {
    let lab = Lab::new();
    let script = "(exec 100>&- 101>&-; dms-lock -w 0.1 x -- true); echo $?";
    let run = lab.feed("dms-lock", &["x", "--", "bash", "-c", script], "");
    assert_eq!(run.expect(0).stdout, "1\n");
    assert!(run.stderr.contains("seconds: held by pid "), "{run}");
}

#[test]
fn inside_each_the_requests_own_locks_are_refused_at_once() {
    let lab = Lab::new();
    let filter = "while read -r line; do
        for name in target.t1 node other; do dms-lock -w 60 $name -- true; printf '%s ' $?; done
        dms-lock -o -w 60 mine -- dms-lock -w 60 mine -- true; echo $?
    done";
    let start = Instant::now();
    let run = lab.feed("dms-lock", &["--each", "--", "sh", "-c", filter], &request("t1"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(run.expect(0).stdout, "100 100 0 100\n");
    assert!(run.stderr.contains("lock target.t1 is held by pid"), "{run}");
    assert!(run.stderr.contains("which waits for this"), "{run}");
    // At any level.
    let nested =
        ["x", "--", "dms-lock", "-o", "x", "--", "dms-lock", "-w", "60", "x", "--", "true"];
    lab.feed("dms-lock", &nested, "").expect(100);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

    // The same from another filter inside: an answer, and no wait.
    let start = Instant::now();
    let run = lab.feed(
        "dms-lock",
        &["--each", "--", "dms-lock", "--each", "-w", "60", "--", "cat"],
        &request("t1"),
    );
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let answer = run.expect(1).line();
    assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
}

#[test]
fn maintenance_that_holds_the_node_can_run_requests_below() {
    let lab = Lab::new();
    let others = |name: &str| {
        let mut command = lab.command("dms-lock", &["--each", "-n", "--", "cat"]);
        run(&mut command, request(name).as_bytes()).line()["error_code"].clone()
    };
    let script = "echo held; read x; printf '%s\\n' \"$x\" | dms-lock --each -n -- tee answer";
    let mut command = lab.command("dms-lock", &["node", "target.t1", "--", "sh", "-c", script]);
    command.current_dir(lab.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it was built");
    eventually("it holds the node", || others("t2") == "lock_timeout");
    let mut stdin = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, request("t1").as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is ours");
    assert!(output.status.success(), "{output:?}");
    let answer = fs::read_to_string(lab.path("answer")).expect("the filter has seen it");
    assert_eq!(answer, request("t1"));
    assert_eq!(others("t1"), serde_json::Value::Null);
}

#[test]
fn a_daemon_that_has_closed_its_descriptors_does_not_keep_the_lock() {
    let lab = Lab::new();
    // As daemons do: a session of its own, and none of what it was given.
    let daemon = "for fd in $(ls /proc/self/fd); do [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; \
        echo $$ >daemon; exec sleep 60";
    let script = format!("setsid bash -c '{daemon}' >/dev/null 2>&1 </dev/null &");
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", &script]);
    run(command.current_dir(lab.path("")), b"").expect(0);
    let pid = || fs::read_to_string(lab.path("daemon")).ok()?.trim().parse::<u32>().ok();
    eventually("the daemon runs", || pid().is_some());
    lab.feed("dms-lock", &["-w", "30", "x", "--", "true"], "").expect(0);
    let pid = pid().expect("just now");
    assert!(fs::exists(format!("/proc/{pid}/exe")).is_ok_and(|there| there), "it has ended");
    let stopped = Command::new("kill").arg(pid.to_string()).status();
    assert!(stopped.is_ok_and(|status| status.success()));
}

#[test]
fn a_nested_wait_is_for_the_sibling_only_and_ends_with_it() {
    let lab = Lab::new();
    let script = "mkfifo a; dms-lock x -- sh -c 'echo held; read y <a' | read z
        dms-lock -w 30 x -- sh -c 'echo in' & echo $! >waiter; wait; echo out";
    // The first line ends when its reader has the word: the lock below is held on by nobody then.
    let script = script.replace("| read z", ">word & until [ -s word ]; do :; done");
    let mut command = lab.command("dms-lock", &["x", "--", "sh", "-c", &script]);
    let child = command.current_dir(lab.path("")).stdout(Stdio::piped()).spawn();
    let child = child.expect("it was built");
    let waiter = || fs::read_to_string(lab.path("waiter")).ok()?.trim().parse::<u32>().ok();
    eventually("the second child waits", || waiter().is_some_and(waits_for_lock));
    fs::write(lab.path("a"), "\n").expect("it reads");
    let output = child.wait_with_output().expect("it is ours");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in\nout\n");
}
