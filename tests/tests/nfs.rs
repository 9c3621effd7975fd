//! NFS targets as far as a kernel without an NFS client goes: what mount(8) is told, and what is
//! believed of it. The real thing is in `nfs_guest.rs`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use dms_tests::{Filter, HOSTILE_EXPORTS, HOSTILE_OPTIONS, NfsNode, eventually, run};
use serde_json::{Value, json};

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn mount_is_told_the_export_the_path_and_the_options_with_ours() {
    let node = NfsNode::new();
    let options = "rw,sync,hard,intr,nfsvers=4,timeo=600,retrans=2";
    let (answer, _) = node.ask(&mut node.node(), &node.request("noop:/export", options));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    let told = node.told().expect("it was called");
    let path = node.lab.mount_point("t").display().to_string();
    assert_eq!(told[..2], ["noop:/export".to_owned(), path], "{told:?}");
    let at = told.iter().position(|word| word == "-o").expect("there are options");
    let given: Vec<&str> = told[at + 1].split(',').collect();
    for option in options.split(',').chain(["nosuid", "nodev", "noexec"]) {
        assert!(given.contains(&option), "no {option} in {given:?}");
    }
    assert!(!given.iter().any(|option| ["suid", "dev", "exec"].contains(option)), "{given:?}");
}

#[test]
fn mount_is_run_by_rootwrap_where_that_is_set() {
    let node = NfsNode::new();
    let mut command = node.node();
    command.env("DMS_ROOTWRAP_BIN", "/usr/bin/dms-rootwrap");
    command.env("DMS_ROOTWRAP_CONF", "/etc/dms/rootwrap.conf");
    let (answer, _) = node.ask(&mut command, &node.request("noop:/export", "ro"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    let asked = fs::read_to_string(node.lab.path("asked")).expect("sudo was called");
    let path = node.lab.mount_point("t").display().to_string();
    let wanted = [
        "/usr/bin/dms-rootwrap",
        "/etc/dms/rootwrap.conf",
        "mount",
        "-t",
        "nfs",
        "-o",
        "ro,nosuid,nodev,noexec",
        "--",
        "noop:/export",
        &path,
    ];
    assert_eq!(asked.lines().collect::<Vec<_>>(), wanted);
    assert!(node.told().is_some(), "and mount by that");

    let mut half = node.node();
    let half = run(half.env("DMS_ROOTWRAP_BIN", "/usr/bin/dms-rootwrap"), b"");
    assert!(half.expect(100).stderr.contains("DMS_ROOTWRAP_CONF is not set"), "{half}");
}

#[test]
fn programs_in_a_target_are_run_only_if_the_operator_says_so() {
    let node = NfsNode::new();
    for (value, last) in [("0", "ro,nosuid,nodev,noexec"), ("1", "ro,nosuid,nodev")] {
        let _ = fs::remove_file(node.lab.path("told"));
        let mut command = node.node();
        command.env("DMS_NFS_EXEC", value);
        node.ask(&mut command, &node.request("noop:/export", "ro"));
        let told = node.told().expect("it was called");
        let at = told.iter().position(|word| word == "-o").expect("there are options");
        // mount(8) puts its own before ours.
        let (given, ours): (Vec<&str>, Vec<&str>) =
            (told[at + 1].split(',').collect(), last.split(',').collect());
        assert!(ours.iter().all(|option| given.contains(option)), "{given:?}");
        assert_eq!(given.contains(&"noexec"), value == "0", "{given:?}");
        let (answer, _) = node.ask(&mut command, &node.request("noop:/export", "ro,exec"));
        assert_eq!(answer["error_code"], "validation", "{answer}");
    }
    let mut command = node.node();
    let odd = run(command.env("DMS_NFS_EXEC", "yes"), b"");
    assert!(odd.expect(100).stderr.contains("DMS_NFS_EXEC \"yes\" is neither 0 nor 1"), "{odd}");
}

#[test]
fn behind_a_sudo_that_closes_the_lock_a_mount_that_outlives_its_time_keeps_the_target_too() {
    let node = NfsNode::new();
    // A terminal, a session and a group of its own for what it runs, and no descriptor of ours.
    fs::write(
        node.lab.path("sudo"),
        "#!/bin/bash\nshift 2\nfor fd in /proc/self/fd/*; do fd=${fd##*/}\n\
         ((fd > 2)) && eval \"exec $fd>&-\" 2>/dev/null; done\n\
         setsid \"$@\" </dev/null >/dev/null 2>&1 &\nwait\n",
    )
    .expect("room for it");
    let rootwrap = |action: &str, export: &str, seconds: &str| {
        let mut command = node.node();
        command.env("DMS_ROOTWRAP_BIN", "/usr/bin/dms-rootwrap");
        command.env("DMS_ROOTWRAP_CONF", "/etc/dms/rootwrap.conf");
        command.env("DMS_REQUEST_TIMEOUT", seconds);
        let mut request = node.request(export, "");
        request["action"] = json!(action);
        node.ask(&mut command, &request).0
    };
    let answer = rootwrap("mount", "hangs:/x", "1");
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    let left = fs::read_to_string(node.lab.path("left")).expect("it was called");
    assert!(is_running(left.trim()), "it was to outlive its time");
    assert!(node.lab.path("run/mounts/t").exists() && node.lab.mount_point("t").exists());
    for (action, export) in [("mount", "noop:/x"), ("mount", "hangs:/x"), ("unmount", "hangs:/x")] {
        let answer = rootwrap(action, export, "5");
        assert_eq!(answer["error_code"], "busy", "{action} {export}: {answer}");
        assert!(text(&answer, "error_msg").contains("does not end, pid "), "{answer}");
    }
    fs::write(node.lab.path("release"), "go\n").expect("it is read");
    eventually("it ends", || !is_running(left.trim()));
    let answer = rootwrap("unmount", "hangs:/x", "5");
    assert_eq!(answer["status"], "success", "{answer}");
    node.assert_nothing_left();
}

#[test]
fn what_mount_says_is_the_answer_and_nothing_is_left() {
    let node = NfsNode::new();
    let path = node.lab.mount_point("t").display().to_string();
    for (host, words) in [
        ("fail", format!("NFS mount failed: mount.nfs: Connection refused for fail:/x on {path}")),
        ("late", "NFS mount failed: timeout: mount.nfs: Connection timed out".to_owned()),
        ("mute", "NFS mount failed: mount ended (exit status: 32)".to_owned()),
        ("noop", format!("NFS mount failed: mount said yes, but nothing is mounted at {path}")),
    ] {
        let request = node.request(&format!("{host}:/x"), "");
        let (answer, run) = node.ask(&mut node.node(), &request);
        assert_eq!((text(&answer, "error_msg"), text(&answer, "error_code")), (&*words, "mount"));
        assert!(run.stderr.contains("error: Mount failed: t: NFS mount failed"), "{run}");
        node.assert_nothing_left();
    }
}

#[test]
fn another_file_system_at_the_path_is_no_success_although_mount_says_so() {
    let node = NfsNode::new();
    let (answer, _) = node.ask(&mut node.node(), &node.request("other:/x", ""));
    let words = "NFS mount failed: other:/x (tmpfs) is mounted at";
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(text(&answer, "error_msg").starts_with(words), "{answer}");
}

#[test]
fn without_the_helper_the_answer_says_what_is_missing() {
    let node = NfsNode::new();
    let mut command = node.command(Path::new("/dev/null"));
    let (answer, _) = node.ask(&mut command, &node.request("h:/x", ""));
    assert_eq!(text(&answer, "error_msg"), "NFS mount failed: mount.nfs is not installed");
    node.assert_nothing_left();
}

#[test]
fn a_mount_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let node = NfsNode::new();
    let start = Instant::now();
    let mut command = node.node();
    command.env("DMS_REQUEST_TIMEOUT", "1");
    let (answer, _) = node.ask(&mut command, &node.request("slow:/x", ""));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(text(&answer, "error_msg").starts_with("timeout: mount of slow:/x at "), "{answer}");
    let pids = fs::read_to_string(node.lab.path("pids")).expect("it was called");
    assert_eq!(pids.split_whitespace().count(), 2);
    for pid in pids.split_whitespace() {
        eventually("it is gone", || !is_running(pid));
    }
    node.assert_nothing_left();
    // Nothing holds the target.
    let (answer, _) = node.ask(&mut node.node(), &node.request("fail:/x", ""));
    assert_eq!(answer["error_code"], "mount", "{answer}");
}

#[test]
fn while_a_part_of_a_mount_outlives_its_time_the_target_is_busy() {
    let node = NfsNode::new();
    let mut first = node.node();
    first.env("DMS_REQUEST_TIMEOUT", "1");
    let (answer, _) = node.ask(&mut first, &node.request("leaves:/x", ""));
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    let left = fs::read_to_string(node.lab.path("left")).expect("it was called");
    assert!(is_running(left.trim()));
    // It might mount yet: whose that will be is on record.
    assert!(node.lab.path("run/mounts/t").exists() && node.lab.mount_point("t").exists());
    for action in ["mount", "unmount"] {
        let mut request = node.request("noop:/x", "");
        request["action"] = json!(action);
        let mut second = node.node();
        let (answer, _) = node.ask(second.env("DMS_REQUEST_TIMEOUT", "1"), &request);
        assert_eq!(answer["error_code"], "busy", "{action}: {answer}");
    }
    fs::write(node.lab.path("release"), "go\n").expect("it is read");
    eventually("it ends", || !is_running(left.trim()));
    let mut request = node.request("leaves:/x", "");
    request["action"] = json!("unmount");
    let (answer, _) = node.ask(&mut node.node(), &request);
    assert_eq!(answer["status"], "success", "{answer}");
    node.assert_nothing_left();
}

#[test]
fn hostile_options_and_exports_start_nothing_and_touch_nothing() {
    let node = NfsNode::new();
    let mut filter = Filter::start(&mut node.node());
    let options = HOSTILE_OPTIONS.map(|options| node.request("h:/x", options));
    let exports = HOSTILE_EXPORTS.map(|export| node.request(export, "rw"));
    assert!(options.len() + exports.len() >= 80);
    for request in options.iter().chain(&exports) {
        let answer = filter.ask(request);
        assert_eq!(answer["error_code"], "validation", "{request}: {answer}");
        let named = ["nfs_mount_opts", "filesystem_export"];
        assert!(named.iter().any(|name| text(&answer, "error_msg").contains(name)), "{answer}");
    }
    assert_eq!(node.told(), None, "mount was run");
    node.assert_nothing_left();
    // It is not that everything is refused.
    let answer = filter.ask(&node.request("[2001:db8::1]:/backups", " rw , vers=4.1,defaults"));
    filter.end();
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert_eq!(node.told().map(|told| told[0].clone()).as_deref(), Some("[2001:db8::1]:/backups"));
}
