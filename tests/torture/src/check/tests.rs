//! Histories that are good, and such as differ from them in one thing.

use serde_json::{Value, json};

use super::check;
use crate::history::{Event, event};

/// A job that is told yes at 2, works until 5, and is told at 6 that its unmount is done.
fn good() -> Vec<Value> {
    let mut lines = vec![
        json!({"t": 1.5, "event": "mounted", "mount": "7/0:50", "since": 1.4}),
        json!({"t": 2.0, "event": "told", "action": "mount", "word": "success", "seconds": 1.0}),
        json!({"t": 2.1, "event": "hold", "asked": 1.0, "told": 2.0}),
        json!({"t": 3.0, "event": "write", "begun": 2.5, "file": "f", "ok": true, "sum": "s",
            "errno": 0, "bare": false}),
        json!({"t": 3.2, "event": "read", "begun": 3.0, "file": "f", "same": true, "errno": 0}),
        json!({"t": 5.0, "event": "left"}),
        json!({"t": 5.6, "event": "unmounted", "mount": "7/0:50", "since": 5.5}),
        json!({"t": 6.0, "event": "told", "action": "unmount", "word": "success", "seconds": 0.9}),
    ];
    for line in &mut lines {
        line["node"] = "n".into();
        line["target"] = "t".into();
        line["hold"] = "h".into();
    }
    lines.push(json!({"t": 8.0, "event": "object", "target": "t", "file": "f", "sum": "s"}));
    lines.push(json!({"t": 9.0, "event": "looked", "places": 3}));
    lines
}

/// What is found, in short.
fn found(lines: Vec<Value>) -> Vec<String> {
    let mut events: Vec<Event> = lines.into_iter().map(event).collect();
    events.sort_by(|a, b| a.t().total_cmp(&b.t()));
    check(&events).into_iter().map(|one| format!("{}: {}", one.promise, one.text)).collect()
}

/// The good history, with one field of one event changed.
fn changed(name: &str, field: &str, value: Value) -> Vec<Value> {
    let mut lines = good();
    // Of two answers, the last.
    let line = lines.iter_mut().rfind(|line| line["event"] == name).expect("it is there");
    line[field] = value;
    lines
}

/// The good history, and this.
fn with(line: Value) -> Vec<Value> {
    let mut lines = good();
    lines.push(line);
    lines
}

fn kill_of_daemon(at: f64) -> [Value; 2] {
    let over = json!({"t": at, "event": "fault-over", "fault": "kill", "node": "n", "pid": 5});
    let mut kill = over.clone();
    kill["event"] = "fault".into();
    kill["process"] = "s3fs".into();
    kill["target"] = "t".into();
    [kill, over]
}

/// The end of who keeps its words takes no mount away.
fn kill_of_drain(at: f64) -> [Value; 2] {
    kill_of_daemon(at).map(|mut line| {
        line["process"] = "drain".into();
        line
    })
}

#[track_caller]
fn assert_found(lines: Vec<Value>, words: &str) {
    let found = found(lines);
    assert!(found.iter().any(|one| one.contains(words)), "{words:?} is not in {found:?}");
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(found(good()), [""; 0]);
}

#[test]
fn a_write_into_the_bare_directory_is_found_whatever_was_done_to_the_mount() {
    let mut lines = changed("write", "bare", true.into());
    assert_found(lines.clone(), "bare directory");
    lines.extend(kill_of_daemon(2.2));
    assert_found(lines, "bare directory");
}

#[test]
fn a_mount_that_goes_away_under_its_job_is_found_unless_its_daemon_was_killed() {
    let mut lines = changed("unmounted", "since", 3.5.into());
    let line = lines.iter_mut().find(|line| line["event"] == "unmounted").expect("it is there");
    line["t"] = 3.6.into();
    assert_found(lines.clone(), "it was unmounted 1.50 s after");
    lines.extend(kill_of_drain(3.4));
    assert_found(lines.clone(), "it was unmounted 1.50 s after");
    lines.extend(kill_of_daemon(3.4));
    assert_eq!(found(lines), [""; 0]);
}

#[test]
fn what_waits_for_an_nfs_server_is_not_given_up() {
    let on = |target: &str| {
        let mut lines = changed("write", "errno", 512.into());
        for line in &mut lines {
            line["ok"] = false.into();
            line["target"] = target.into();
        }
        lines
    };
    assert_found(on("export-0"), "somebody has ended what waited");
    assert_eq!(found(on("t")), [""; 0]);
}

#[test]
fn an_unmount_that_may_have_been_before_the_answer_is_not_held_against_anybody() {
    let mut lines = changed("unmounted", "since", 1.9.into());
    let line = lines.iter_mut().find(|line| line["event"] == "unmounted").expect("it is there");
    line["t"] = 2.4.into();
    assert_eq!(found(lines), [""; 0]);
}

#[test]
fn a_write_that_finds_nothing_mounted_is_found_and_one_that_the_daemon_refuses_is_not() {
    let refused = |errno: f64| {
        let mut lines = changed("write", "errno", errno.into());
        let line = lines.iter_mut().find(|line| line["event"] == "write").expect("it is there");
        line["ok"] = false.into();
        lines
    };
    let mut gone = refused(2.0);
    gone.retain(|line| line["event"] != "mounted");
    assert_found(gone, "nothing is mounted");
    // The kernel had it mounted all the time: the daemon has said so.
    assert_eq!(found(refused(2.0)), [""; 0]);
    assert_eq!(found(refused(5.0)), [""; 0]);
    assert_found(refused(107.0), "its daemon is gone");
    let mut killed = refused(107.0);
    killed.extend(kill_of_daemon(2.4));
    assert_eq!(found(killed), [""; 0]);
}

#[test]
fn a_daemon_that_was_dead_before_it_was_asked_for_is_no_excuse() {
    let mut lines = changed("write", "errno", 107.into());
    let line = lines.iter_mut().find(|line| line["event"] == "write").expect("it is there");
    line["ok"] = false.into();
    lines.extend(kill_of_daemon(-4.0));
    assert_found(lines, "its daemon is gone");
}

#[test]
fn a_job_that_the_ledger_has_forgotten_is_found_unless_its_node_was_down() {
    let lines = changed("told", "word", "no_active_mount".into());
    assert_found(lines.clone(), "the ledger does not know it");
    let mut lines = lines;
    lines.push(json!({"t": 4.0, "event": "down", "node": "n"}));
    assert_eq!(found(lines), [""; 0]);
}

#[test]
fn data_that_is_not_in_the_bucket_or_another_is_found() {
    assert_found(changed("object", "sum", "other".into()), "its object is another one");
    assert_found(changed("object", "sum", Value::Null), "its object is not there");
    let mut lines = changed("object", "sum", Value::Null);
    lines.extend(kill_of_daemon(3.5));
    assert_eq!(found(lines), [""; 0]);
    // Nothing is promised to a job that was not told that its unmount was done.
    let mut lines = changed("object", "sum", Value::Null);
    lines.retain(|line| line["action"] != "unmount");
    assert_eq!(found(lines), [""; 0]);
}

#[test]
fn a_read_that_differs_and_an_answer_that_does_not_come_are_found() {
    assert_found(changed("read", "same", false.into()), "is not the same");
    assert_found(changed("told", "late", true.into()), "had no answer after");
    assert_found(changed("told", "word", "none".into()), "was not answered");
    let mut cut = changed("told", "word", "none".into());
    for line in &mut cut {
        line["signalled"] = true.into();
    }
    assert_eq!(found(cut), [""; 0]);
    assert_found(with(json!({"t": 7.0, "event": "stuck", "word": "busy"})), "never done");
}

#[test]
fn what_is_left_at_the_end_is_found() {
    let state = |field: &str, value: Value| {
        let mut line = json!({"t": 7.0, "event": "state", "node": "n", "stopped": true,
            "mounts": [], "processes": [], "files": [], "locked": [], "bindings": [],
            "operations": [], "audit": 0});
        line[field] = value;
        with(line)
    };
    assert_eq!(found(state("mounts", json!([]))), [""; 0]);
    assert_found(state("mounts", json!(["t"])), "t is still mounted");
    assert_found(state("bindings", json!([{"job": 1}])), "its job has left");
    assert_found(state("processes", json!(["s3fs"])), "still runs");
    assert_found(state("audit", json!(1)), "the audit says");
    assert_found(state("stopped", json!(false)), "does not end");
    let secret = json!({"t": 7.0, "event": "secret", "place": "a log", "begins": "AKTO"});
    assert_found(with(secret), "is in a log");
    let mut cut = good();
    cut.retain(|line| line["event"] != "looked");
    assert_found(cut, "the history ends before");
}

#[test]
fn a_listener_that_has_grown_is_found() {
    let weight = |t: f64, when: &str, descriptors: u32| {
        json!({"t": t, "event": "weight", "node": "n", "when": when, "descriptors": descriptors,
            "memory": 1000, "processes": ["dms-listen"]})
    };
    let mut lines = with(weight(0.1, "start", 13));
    lines.push(weight(7.0, "end", 15));
    assert_eq!(found(lines.clone()), [""; 0]);
    lines.push(weight(7.1, "end", 40));
    assert_found(lines, "the listener's descriptors: 13 at the start, 40 at the end");
}

#[test]
fn a_pool_that_comes_on_a_second_host_is_found_and_a_bucket_is_not() {
    let on_two = |target: &str, at: f64| {
        let second = json!({"t": at, "event": "mounted", "mount": "9/0:60", "since": at - 0.1,
            "node": "m"});
        let mut lines = with(second);
        for line in &mut lines {
            line["target"] = target.into();
        }
        found(lines)
    };
    let two = ["one host at a time has a pool: it came on m while it was there"];
    assert_eq!(on_two("pool-shared", 4.0), two);
    assert_eq!(on_two("pool-shared", 5.55), [""; 0]);
    assert_eq!(on_two("t", 4.0), [""; 0]);
}
