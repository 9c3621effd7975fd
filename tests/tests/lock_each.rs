//! The filter form of dms-lock: the locks of each request, what it says of the wait for them, and its
//! filter's end.

use std::fs;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Lab, eventually, run, waits_for_lock};
use serde_json::json;

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

#[test]
fn a_request_waits_no_longer_than_its_deadline() {
    let lab = Lab::new();
    let holder = lab.hold(&["target.t1"]);
    let uptime = fs::read_to_string("/proc/uptime").expect("/proc is there");
    let now: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).expect("proc(5)");
    let request = json!({"deadline": now + 0.3, "backup_target": {"id": "t1"}});
    let begun = Instant::now();
    for args in [&["--each", "--", "cat"][..], &["--each", "-w", "600", "--", "cat"]] {
        let answer = lab.feed("dms-lock", args, &request.to_string()).expect(1).line();
        assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    holder.release();
}

#[test]
fn each_lock_that_is_taken_is_logged_with_its_wait() {
    let lab = Lab::new();
    let logged = |level: &str, args: &[&str]| {
        let mut command = lab.command("dms-lock", args);
        run(command.env("DMS_LOG_LEVEL", level), requests(&["t1"]).as_bytes()).stderr
    };
    let each = ["--each", "-s", "x", "--", "cat"];
    let said = logged("DEBUG", &each);
    for lock in ["node (Shared", "target.t1 (Exclusive", "x (Shared"] {
        let line = format!("dms-lock: debug: Successfully acquired lock for {lock}, after 0.");
        assert!(said.contains(&line), "{said}");
    }
    assert_eq!(logged("INFO", &each), "");
    let holder = lab.hold(&["x"]);
    let mut waiter = lab.command("dms-lock", &["x", "--", "true"]);
    let waiter = waiter.stderr(std::process::Stdio::piped()).spawn().expect("it was built");
    eventually("it waits", || waits_for_lock(waiter.id()));
    let begun = Instant::now();
    eventually("for a second", || begun.elapsed() > Duration::from_secs(1));
    holder.release();
    let output = waiter.wait_with_output().expect("it is ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = "dms-lock: info: Successfully acquired lock for x (Exclusive, after ";
    assert!(said.starts_with(line), "{said}");
}

#[test]
fn a_wait_that_a_request_had_is_in_the_journal_and_so_is_one_in_vain() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    assert_eq!(lab.history("t1")[0]["lock_wait_ms"], 0);
    let holder = lab.hold(&["target.t1"]);
    let mut pipeline = Filter::start(&mut lab.pipeline_command());
    pipeline.tell(&lab.request("mount", 2, "t1"));
    eventually("it waits", || waits_for_lock(pipeline.pid().cast_unsigned()));
    let begun = Instant::now();
    eventually("for a while", || begun.elapsed().as_millis() >= 120);
    holder.release();
    assert_eq!(pipeline.answer()["status"], "success");
    pipeline.end();
    let waited = &lab.history("t1")[0]["lock_wait_ms"];
    assert!(waited.as_i64().is_some_and(|ms| (120..30_000).contains(&ms)), "{waited}");

    let holder = lab.hold(&["target.t1"]);
    let mut request = lab.request("unmount", 2, "t1");
    request["request_id"] = "again".into();
    let refused = in_vain(&lab, &request);
    assert_eq!(refused["error_code"], "lock_timeout", "{refused}");
    let last = &lab.history("t1")[0];
    assert_eq!((&last["operation"], &last["status"]), (&json!("again"), &json!("error")));
    assert_eq!(last["message"], refused["error_msg"]);
    assert!(last["lock_wait_ms"].as_i64().is_some_and(|ms| ms >= 100), "{last}");
    let metrics = lab.feed("dms-ledger", &["metrics"], "").expect(0).stdout.clone();
    let timeouts = format!("dms_lock_timeouts_total{{host=\"{}\"}} 1\n", lab.node);
    assert!(metrics.contains(&timeouts), "{metrics}");
    // Nothing of it is a secret, or was done.
    let rows = lab.sql("SELECT request_data, response_data FROM backup_target_mount_operations");
    assert!(!rows.contains("must-not-leak"), "{rows}");
    assert_eq!(lab.users("t1"), [1, 2]);
    // Once more: there is one row of it, which says what came of it at last.
    in_vain(&lab, &request);
    holder.release();
    assert_eq!(lab.send(&request)["status"], "success");
    let rows = lab.history("t1");
    let again: Vec<_> = rows.iter().filter(|row| row["operation"] == "again").collect();
    assert_eq!((again.len(), &again[0]["status"]), (1, &json!("success")), "{again:?}");
    lab.unmount(1, "t1");
}

/// Asks a pipeline that waits for a tenth of a second only.
fn in_vain(lab: &Lab, request: &serde_json::Value) -> serde_json::Value {
    let mut pipeline = lab.pipeline_command();
    pipeline.args(["-w", "0.1"]);
    run(&mut pipeline, format!("{request}\n").as_bytes()).line()
}

#[test]
fn a_request_without_locks_is_seen_by_no_stage_that_acts() {
    let lab = Lab::new();
    let holder = lab.hold(&["target.t1"]);
    let line = format!("{}\n", lab.request("mount", 1, "t1"));
    // Whatever the filter is: it is told of the answer, and nothing else.
    for filter in [&["dms-mount"][..], &["cat"], &["tee", "seen"]] {
        let args = [&["--each", "-n", "--"], filter].concat();
        let mut command = lab.command("dms-lock", &args);
        let answer = run(command.current_dir(lab.path("")), line.as_bytes()).line();
        assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
        assert!(answer.get("request").is_none(), "{answer}");
    }
    let seen = fs::read_to_string(lab.path("seen")).expect("it was told");
    assert!(seen.contains("lock_timeout") && !seen.contains("must-not-leak"), "{seen}");
    assert_eq!(lab.mounted("t1"), None);
    holder.release();
}
