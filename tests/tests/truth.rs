//! The kernel is the truth: what the ledger, a PID file or a directory says is only a claim.

use std::fs;
use std::path::Path;

use dms_tests::{Filter, Lab, eventually, mount_source};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).expect("it can be made");
    let data = None::<&str>;
    mount(Some("stranger"), path, Some("tmpfs"), MsFlags::empty(), data).expect("root can mount");
}

#[test]
fn where_the_ledger_says_mounted_and_nothing_is_the_next_job_really_mounts() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // As after a reboot: the rows are there, the mount, its daemon and /run are not.
    umount2(&lab.mount_point("t1"), MntFlags::empty()).expect("nobody uses it");
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    assert_eq!(lab.users("t1"), [1]);

    let answer = lab.mount(2, "t1");
    assert_eq!(answer["physically_mounted"], true);
    fs::write(lab.mount_point("t1").join("backup"), "data").expect("it is mounted");
    assert!(lab.object("backup").exists(), "the write is not in the bucket");
    assert_eq!(lab.users("t1"), [1, 2]);
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    assert_eq!(lab.mounted("t1"), None);
    let bare = fs::read_dir(lab.mount_point("t1")).into_iter().flatten().count();
    assert_eq!(bare, 0, "something was written into the bare directory");
}

#[test]
fn another_file_system_at_the_path_is_an_error_and_is_left_alone() {
    let lab = Lab::new();
    tmpfs(&lab.mount_point("t1"));
    fs::write(lab.mount_point("t1").join("theirs"), "x").expect("it is a tmpfs");
    for action in ["mount", "unmount"] {
        let mut request = lab.request(action, 1, "t1");
        request["jobid"] = Value::Null;
        let bare = lab.feed("dms-mount", &[], &request.to_string()).expect(1).line();
        assert_eq!(bare["error_code"], action, "{bare}");
        assert!(bare["error_msg"].as_str().is_some_and(|msg| msg.contains("stranger")), "{bare}");
    }
    let planned = lab.send(&lab.request("mount", 1, "t1"));
    assert_eq!(planned["error_code"], "mount", "{planned}");
    assert_eq!(mount_source(&lab.mount_point("t1")).as_deref(), Some("stranger"));
    assert!(lab.mount_point("t1").join("theirs").exists());
    assert_eq!(lab.users("t1"), [0; 0]);
}

#[test]
fn a_mount_of_another_target_is_not_taken_for_this_one() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // Around the ledger, straight at the node: the second target wants the first one's path.
    let mut request = lab.request("mount", 2, "t2");
    request["backup_target"]["filesystem_export_mount_path"] =
        json!(lab.mount_point("t1").display().to_string());
    let answer = lab.feed("dms-mount", &[], &request.to_string()).expect(1).line();
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert_eq!(lab.mounted("t1").as_deref(), Some("dms:t1/bucket"));
}

#[test]
fn a_target_has_one_path_and_a_path_one_target() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let at = |target: &str, path: &str| {
        let mut request = lab.request("mount", 2, target);
        request["backup_target"]["filesystem_export_mount_path"] =
            json!(lab.mount_point(path).display().to_string());
        request
    };
    for (target, path) in [("t2", "t1"), ("t1", "t9")] {
        let answer = lab.send(&at(target, path));
        assert_eq!(answer["error_code"], "busy", "{target} at {path}: {answer}");
    }
    // The node itself knows better, too.
    let answer = lab.feed("dms-mount", &[], &at("t1", "t9").to_string()).expect(1).line();
    assert_eq!(answer["error_code"], "busy", "{answer}");
    assert!(!lab.mount_point("t9").exists());
    assert_eq!((lab.users("t1"), lab.users("t2")), (vec![1], vec![]));
}

#[test]
fn a_mount_whose_daemon_was_killed_is_mounted_anew() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    assert!(lab.mounted("t1").is_some(), "a killed daemon leaves its mount");
    assert!(fs::read_dir(lab.mount_point("t1")).is_err());

    let answer = lab.mount(2, "t1");
    assert_eq!(answer["physically_mounted"], true);
    fs::write(lab.mount_point("t1").join("x"), "anew").expect("it is mounted");
    assert!(lab.object("x").exists());
    assert_eq!(lab.users("t1"), [1, 2]);
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_dead_mount_is_unmounted_although_a_job_stands_in_it() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let user = lab.job_in("t1");
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    lab.unmount(1, "t1");
    lab.assert_gone("t1");
    user.release();
}

#[test]
fn a_hung_mount_is_a_timeout_and_is_not_touched() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let daemon = lab.daemons("t1").remove(0);
    daemon.signal(Signal::SIGSTOP);
    let run = |action: &str, job| {
        let mut pipeline = lab.pipeline_command();
        let request = format!("{}\n", lab.request(action, job, "t1"));
        dms_tests::run(pipeline.env("DMS_REQUEST_TIMEOUT", "2"), request.as_bytes()).line()
    };
    for (action, job) in [("mount", 2), ("unmount", 1)] {
        let answer = run(action, job);
        assert_eq!(answer["error_code"], "timeout", "{answer}");
        assert_eq!(lab.daemons("t1"), std::slice::from_ref(&daemon), "the daemon was touched");
    }
    daemon.signal(Signal::SIGCONT);
    assert_eq!(lab.users("t1"), [1]);
    // Whatever the unmount did when its time was up, the next job has a working mount.
    eventually("job 2 mounts", || lab.send(&lab.request("mount", 2, "t1"))["status"] == "success");
    fs::write(lab.mount_point("t1").join("x"), "whole").expect("it is mounted");
    assert_eq!(fs::read_to_string(lab.object("x")).expect("in the bucket"), "whole");
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_mount_without_a_record_is_adopted_with_its_daemon() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    let answer = lab.mount(2, "t1");
    assert_eq!(answer["reused_existing"], true, "{answer}");
    let pid = fs::read_to_string(lab.path("run/s3/t1.pid")).expect("it was adopted");
    assert_eq!(pid.trim(), lab.daemons("t1")[0].pid.to_string());
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, vec![]));
}

#[test]
fn a_pid_file_that_names_a_stranger_harms_nobody() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let mut stranger = lab.command("sleep", &["60"]).spawn().expect("sleep is there");
    fs::write(lab.path("run/s3/t1.pid"), format!("{}\n", stranger.id())).expect("root can");
    let record = fs::read_to_string(lab.path("run/mounts/t1")).expect("it is there");
    let mut record: Value = serde_json::from_str(&record).expect("it is JSON");
    record["daemon"]["pid"] = json!(stranger.id());
    fs::write(lab.path("run/mounts/t1"), record.to_string()).expect("root can");
    lab.unmount(1, "t1");
    assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, vec![]));
    assert!(stranger.try_wait().expect("it is ours").is_none(), "the stranger was killed");
    stranger.kill().and_then(|()| stranger.wait().map(|_| ())).expect("it is ours");
}

#[test]
fn a_pid_file_that_somebody_has_spoiled_keeps_nobody_from_what_a_dead_daemon_left() {
    let lab = Lab::new();
    for (job, spoiled) in (1..).zip(["-1\n", "0\n", "-2147483648\n", "garbage\n", ""]) {
        lab.mount(job, "t1");
        for daemon in lab.daemons("t1") {
            daemon.signal(Signal::SIGKILL);
            eventually("its end", || !daemon.runs());
        }
        fs::write(lab.path("run/s3/t1.pid"), spoiled).expect("root can");
        lab.unmount(job, "t1");
        lab.assert_gone("t1");
    }
}

#[test]
fn an_unmount_at_another_path_leaves_the_mount_and_its_record_alone() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let elsewhere = lab.mount_point("elsewhere").display().to_string();
    let bare = json!({"action": "unmount",
        "backup_target": {"id": "t1", "filesystem_export_mount_path": elsewhere}});
    let answer = lab.feed("dms-mount", &[], &bare.to_string()).expect(0).line();
    assert_eq!(answer["success_msg"], format!("Target not mounted at {elsewhere}"));
    assert!(lab.path("run/s3/t1.pid").exists() && lab.path("run/mounts/t1").exists());
    lab.unmount(1, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_job_that_means_another_bucket_is_not_told_yes() {
    let lab = Lab::new();
    fs::create_dir(lab.path("bucket-root/other")).expect("room for it");
    let other = lab.secret("other", |secret| secret["bucket"] = json!("other"));
    let same = lab.secret("same", |_| ());
    lab.mount(1, "t1");
    let with = |job: i32, secret: &str| {
        let mut request = lab.request("mount", job, "t1");
        request["backup_target"]["secret_ref"] = json!(secret);
        lab.send(&request)
    };
    let answer = with(2, &other);
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(answer["error_msg"].as_str().is_some_and(|msg| msg.contains("bucket")), "{answer}");
    // Another secret may open the same bucket.
    assert_eq!(with(3, &same)["reused_existing"], true);
    assert_eq!(lab.users("t1"), [1, 3]);
    // Also where all that is left to compare is what the kernel says.
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    assert_eq!(with(4, &other)["error_code"], "mount");
    assert_eq!(with(4, &same)["status"], "success");
}

#[test]
fn a_run_directory_without_room_leaves_nothing_half_done() {
    let lab = Lab::new();
    lab.feed("dms-mount", &["list"], "").expect(0);
    // No record can be written: there is a directory where the file should be.
    fs::create_dir(lab.path("run/mounts/t1")).expect("room for it");
    let answer = lab.send(&lab.request("mount", 1, "t1"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, vec![]));
    assert!(!lab.mount_point("t1").exists(), "the mount point is left");
    assert!(!lab.path("run/mounts/.t1").exists(), "a temporary file is left");
    fs::remove_dir(lab.path("run/mounts/t1")).expect("it is empty");
    lab.mount(1, "t1");
}

#[test]
fn a_signal_does_not_cut_an_act_in_half() {
    let lab = Lab::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut node = Filter::start(&mut lab.command("dms-mount", &[]));
        let mut request = lab.request("mount", 1, "t1");
        request["jobid"] = Value::Null;
        node.tell(&request);
        eventually("it has begun", || !lab.daemons("t1").is_empty());
        kill(Pid::from_raw(node.pid()), signal).expect("it runs");
        assert_eq!(node.answer()["status"], "success");
        node.end();
        assert!(fs::read_dir(lab.mount_point("t1")).is_ok(), "the mount does not work");
        request["action"] = json!("unmount");
        lab.feed("dms-mount", &[], &request.to_string()).expect(0);
        lab.assert_gone("t1");
    }
}

#[test]
fn an_idle_stage_ends_at_a_signal() {
    let lab = Lab::new();
    let node = Filter::start(&mut lab.command("dms-mount", &[]));
    let pid = node.pid();
    let ready = format!("/proc/{pid}/status");
    // Caught, not deadly: the mask of caught signals has both once it is ready.
    eventually("it is ready", || {
        let status = fs::read_to_string(&ready).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        caught.is_some_and(|mask| {
            u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 0x4002 == 0x4002)
        })
    });
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    node.end();
}

#[test]
fn what_was_done_is_recorded_although_the_caller_is_gone() {
    let lab = Lab::new();
    let mut pipeline = Filter::start(&mut lab.pipeline_command());
    pipeline.tell(&lab.request("mount", 1, "t1"));
    eventually("the act has begun", || !lab.daemons("t1").is_empty());
    kill(Pid::from_raw(pipeline.pid()), Signal::SIGKILL).expect("it runs");
    pipeline.end();
    eventually("it is recorded", || lab.history("t1")[0]["status"] == "success");
    assert_eq!(lab.users("t1"), [1]);
    lab.unmount(1, "t1");
    lab.assert_gone("t1");
}
