//! dms-lock: flock(1)'s habits, a filter form, and a lock that says who is alive.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Held, Lab, eventually, run};
use serde_json::json;

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
    for mut holder in both(&lab, &[], &Held::SHELL) {
        let holder = Held::start(&mut holder);
        for options in [&["-n"][..], &["-w", "0.05"], &["-s", "-n"], &["-x", "-n"]] {
            for mut command in both(&lab, options, &["true"]) {
                run(&mut command, b"").expect(1);
            }
        }
        holder.release();
    }
    for mut holder in both(&lab, &["-s"], &Held::SHELL) {
        let holder = Held::start(&mut holder);
        for (options, code) in [(&["-s", "-n"][..], 0), (&["-n"], 1)] {
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
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 1", 1)] {
        for mut command in both(&lab, &[], &["sh", "-c", script]) {
            run(&mut command, b"").expect(code);
        }
    }
    // A signal stays a signal, because the command stands in our place.
    let killed = run(&mut lab.command("dms-lock", &["--", "sh", "-c", "kill -KILL $$"]), b"");
    killed.expect(128 + 9);
    let [mut ours, _] = both(&lab, &[], &["cat"]);
    assert_eq!(run(&mut ours, b"input").expect(0).stdout, "input");
    let nobody = lab.feed("dms-lock", &["--", "no-such-program"], "");
    nobody.expect(127);
    assert_eq!(
        nobody.stderr,
        "dms-lock: fatal: unable to run no-such-program: No such file or directory\n"
    );
    lab.feed("dms-lock", &["--", "/etc/passwd"], "").expect(126);
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
    assert_eq!(refused.stderr, "dms-lock: fatal: Could not acquire lock x after 1 seconds\n");
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
    let locks = || fs::read_to_string("/proc/locks").expect("/proc is there");
    let waiting = format!("-> FLOCK  ADVISORY  WRITE {}", waiter.id());
    eventually("it waits in the kernel, not in a loop", || locks().contains(&waiting));
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
    let script = "echo held; echo $DMS_LIFE_LOCK >life; read x";
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

fn requests(targets: &[&str]) -> String {
    targets.iter().map(|id| format!("{}\n", json!({"backup_target": {"id": id}}))).collect()
}

#[test]
fn each_request_has_its_locks_while_the_filter_has_it() {
    let lab = Lab::new();
    // The filter looks, from inside, who can have which lock.
    let script = "while read -r line; do
        for name in target.t1 target.t2 extra; do flock -n lock/$name.lock true; printf '%s' $?; done
        flock -n -s lock/node.lock true; printf '%s' $?
        flock -n lock/node.lock true; echo $?
    done";
    let mut command = lab.command("dms-lock", &["--each", "extra", "--", "sh", "-c", script]);
    let run = run(command.current_dir(lab.path("")), requests(&["t1", "t2"]).as_bytes());
    // Taken: its own target and the name of the command line; the node's lock is shared.
    assert_eq!(run.expect(0).stdout, "10101\n01101\n");
    lab.feed("dms-lock", &["-n", "target.t1", "target.t2", "node", "--", "true"], "").expect(0);
}

#[test]
fn maintenance_on_the_node_keeps_requests_waiting_and_then_answers_them() {
    let lab = Lab::new();
    let holder = lab.hold(&["node"]);
    let refused = lab.feed("dms-lock", &["--each", "-w", "0.1", "--", "cat"], &requests(&["t1"]));
    assert_eq!(refused.expect(1).line()["error_code"], "lock_timeout");
    holder.release();
    lab.feed("dms-lock", &["--each", "-w", "0.1", "--", "cat"], &requests(&["t1"])).expect(0);
}

#[test]
fn a_filter_that_dies_is_answered_for_and_started_anew() {
    let lab = Lab::new();
    let script = "read -r line; echo \"$line\"; read -r line; exit 3";
    let run = lab.feed(
        "dms-lock",
        &["--each", "--", "sh", "-c", script],
        &requests(&["a", "b", "c", "d", "e"]),
    );
    // Its own code, since that says more than "an answer was an error".
    let answers = run.expect(3).lines();
    let codes: Vec<_> = answers.iter().map(|answer| answer["error_code"].clone()).collect();
    let lost = json!("internal");
    let kept = serde_json::Value::Null;
    assert_eq!(codes, [kept.clone(), lost.clone(), kept.clone(), lost, kept], "{run}");
}

#[test]
fn a_filter_that_says_too_much_is_not_believed() {
    let lab = Lab::new();
    let run = lab.feed(
        "dms-lock",
        &["--each", "--", "sh", "-c", "while read -r line; do echo '{}'; echo '{}'; done"],
        &requests(&["a", "b"]),
    );
    let answers = run.lines();
    assert_eq!(answers.len(), 2, "{run}");
}

#[test]
fn a_filter_that_answers_before_it_has_read_everything_does_not_block() {
    let lab = Lab::new();
    let big = json!({"backup_target": {"id": "t"}, "padding": "p".repeat(1 << 19)});
    let run = lab.feed("dms-lock", &["--each", "--", "cat"], &format!("{big}\n{big}\n"));
    assert_eq!(run.expect(0).lines(), [big.clone(), big]);
}

#[test]
fn a_pipeline_that_loses_any_stage_ends_as_a_whole() {
    let lab = Lab::new();
    for victim in ["dms-ledger plan", "dms-mount", "dms-ledger commit"] {
        let mut pipeline = Filter::start(&mut lab.pipeline_command());
        let request = lab.request("unmount", 1, "t1");
        assert_eq!(pipeline.ask(&request)["error_code"], "no_active_mount");
        let found = lab.processes().into_iter().find(|p| p.command == victim);
        let found = found.unwrap_or_else(|| panic!("no {victim} in {:?}", lab.processes()));
        found.signal(nix::sys::signal::Signal::SIGKILL);
        // The stages that are left end by themselves, idle as they are, and then their shell.
        eventually("the filter ends", || {
            let ours = lab.processes();
            !ours.iter().any(|p| p.command.starts_with("dms-ledger") || p.command.starts_with("sh"))
        });
        // No request was lost with them, so none is answered with an error.
        assert_eq!(pipeline.ask(&request)["error_code"], "no_active_mount", "{victim}");
        pipeline.end();
    }
}

#[test]
fn a_lock_that_cannot_be_opened_is_an_error_for_its_target_alone() {
    let lab = Lab::new();
    lab.feed("dms-lock", &["--", "true"], "").expect(0);
    fs::create_dir(lab.path("lock/target.bad.lock")).expect("room for it");
    let run = lab.feed("dms-lock", &["--each", "--", "cat"], &requests(&["bad", "good"]));
    let answers = run.expect(1).lines();
    assert_eq!(answers[0]["error_code"], "internal", "{run}");
    assert_eq!(answers[1]["backup_target"]["id"], "good", "{run}");
}
