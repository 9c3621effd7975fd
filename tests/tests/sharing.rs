//! Jobs share a mount: the first one mounts it, the last one unmounts it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Lab, eventually, run};
use serde_json::json;

#[test]
fn a_single_job_mounts_writes_and_really_unmounts() {
    let lab = Lab::new();
    let answer = lab.mount(1, "t1");
    assert_eq!(answer["physically_mounted"], true);
    assert_eq!(answer["reused_existing"], false);
    assert_eq!(answer["mount_path"], lab.mount_point("t1").display().to_string());
    assert_eq!(
        answer["success_msg"],
        format!("S3 target mounted successfully at {}", lab.mount_point("t1").display())
    );
    assert_eq!(lab.mounted("t1").as_deref(), Some("dms:t1/bucket"));
    fs::write(lab.mount_point("t1").join("backup"), "of a vm").expect("it is mounted");

    let answer = lab.unmount(1, "t1");
    assert_eq!(
        (&answer["unmounted"], &answer["active_mounts_remaining"]),
        (&json!(true), &json!(0))
    );
    lab.assert_gone("t1");
    let object = fs::read_to_string(lab.object("backup")).expect("it is in the bucket");
    assert_eq!(object, "of a vm");
}

#[test]
fn an_unmount_is_not_physical_while_other_jobs_use_the_target() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let second = lab.mount(2, "t1");
    assert_eq!(
        (&second["physically_mounted"], &second["reused_existing"]),
        (&json!(false), &json!(true))
    );
    let daemon = lab.daemons("t1");

    let answer = lab.unmount(1, "t1");
    assert_eq!(
        (&answer["unmounted"], &answer["active_mounts_remaining"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(lab.daemons("t1"), daemon, "the daemon is not the same");
    fs::write(lab.mount_point("t1").join("x"), "still here").expect("it is still mounted");
    assert!(lab.object("x").exists());
}

#[test]
fn three_jobs_leave_and_only_the_last_one_unmounts() {
    let lab = Lab::new();
    for job in [1, 2, 3] {
        lab.mount(job, "t1");
    }
    assert_eq!(lab.users("t1"), [1, 2, 3]);
    for (job, remaining) in [(1, 2), (2, 1), (3, 0)] {
        assert!(lab.mounted("t1").is_some(), "gone before job {job} left");
        let answer = lab.unmount(job, "t1");
        assert_eq!(answer["active_mounts_remaining"], remaining, "{answer}");
        assert_eq!(answer["unmounted"], remaining == 0, "{answer}");
    }
    lab.assert_gone("t1");
    assert_eq!(lab.users("t1"), [0; 0]);
}

#[test]
fn of_a_crowd_a_hundred_are_counted_and_the_last_one_still_unmounts() {
    const JOBS: i32 = 103;
    let lab = Lab::new();
    let come = (1..=JOBS).map(|job| lab.request("mount", job, "t1"));
    // The first has a row that is not among those that are looked at, the last ones are.
    let leave = (1..=JOBS).map(|job| lab.request("unmount", job, "t1"));
    let input: String = come.chain(leave).map(|request| request.to_string() + "\n").collect();
    let answers = lab.feed("dms-pipeline", &[], &input).expect(0).lines();
    let left = (0..JOBS).rev();
    for (answer, left) in answers.iter().skip(JOBS.unsigned_abs() as usize).zip(left) {
        assert_eq!(answer["active_mounts_remaining"], left.min(100), "{answer}");
        assert_eq!(answer["unmounted"], left == 0, "{answer}");
    }
    assert_eq!(answers.len(), 2 * JOBS.unsigned_abs() as usize);
    lab.assert_gone("t1");
}

#[test]
fn who_leaves_a_crowd_is_found_though_one_of_those_who_are_looked_at_has_ended() {
    const JOBS: i32 = 103;
    let lab = Lab::new();
    let come = (1..=JOBS).map(|job| lab.request("mount", job, "t1").to_string() + "\n");
    lab.feed("dms-pipeline", &[], &come.collect::<String>()).expect(0);
    // The keeper of one was of an earlier boot.
    lab.sql(
        "UPDATE backup_target_mount_ledger SET owner =
         (SELECT REPLACE('{\"host\":\"HERE\",\"boot\":\"0\",\"life\":\"x\"}', 'HERE', owner_host)
          FROM backup_target_mount_operations LIMIT 1)
         WHERE jobid = 103",
    );
    let answer = lab.unmount(1, "t1");
    assert_eq!((&answer["status"], &answer["unmounted"]), (&json!("success"), &json!(false)));
    assert_eq!(lab.users("t1"), (2..JOBS).map(i64::from).collect::<Vec<_>>());
}

#[test]
fn a_job_that_mounts_twice_counts_once() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let again = lab.mount(1, "t1");
    assert_eq!(again["reused_existing"], true);
    assert_eq!(lab.users("t1"), [1]);
    assert_eq!(lab.unmount(1, "t1")["active_mounts_remaining"], 0);
    lab.assert_gone("t1");
}

#[test]
fn a_job_that_does_not_use_the_target_is_told_so() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let answer = lab.send(&lab.request("unmount", 2, "t1"));
    assert_eq!(answer["error_code"], "no_active_mount");
    assert_eq!(answer["error_msg"], "No active mount found for this job");
    assert_eq!(answer["active_mounts_remaining"], 1);
    assert!(lab.mounted("t1").is_some());
}

#[test]
fn an_unmount_needs_only_job_target_and_host() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    let path = lab.mount_point("below/elsewhere").display().to_string();
    request["backup_target"]["filesystem_export_mount_path"] = json!(path);
    assert_eq!(lab.send(&request)["mount_path"], path);
    let bare = json!({"jobid": 1, "host": dms_tests::NODE, "action": "unmount",
        "backup_target": {"id": "t1"}});
    let answer = lab.send(&bare);
    assert_eq!((&answer["status"], &answer["unmounted"]), (&json!("success"), &json!(true)));
    assert_eq!(lab.mounted("below/elsewhere"), None);
}

#[test]
fn concurrent_operations_on_one_target_are_serialised() {
    let lab = Lab::new();
    // Twenty jobs come and go at once: a job that was told yes must be able to write.
    thread::scope(|scope| {
        for job in 1..=20 {
            let lab = &lab;
            scope.spawn(move || {
                lab.mount(job, "t1");
                let file = lab.mount_point("t1").join(format!("job-{job}"));
                fs::write(&file, "held").unwrap_or_else(|why| panic!("job {job}: {why}"));
                lab.unmount(job, "t1");
            });
        }
    });
    for job in 1..=20 {
        assert!(lab.object(&format!("job-{job}")).exists(), "job {job} wrote beside the mount");
    }
    lab.assert_gone("t1");
    let history = lab.history("t1");
    let said = |words: &str| {
        history
            .iter()
            .filter(|op| op["message"].as_str().is_some_and(|m| m.starts_with(words)))
            .count()
    };
    let physical = said("S3 target mounted successfully");
    assert!(physical >= 1 && physical == said("Target unmounted successfully"), "{history:?}");
}

#[test]
fn a_lock_that_cannot_be_had_in_time_is_an_error_and_nothing_is_touched() {
    let lab = Lab::new();
    let holder = lab.hold(&["target.t1"]);
    let start = Instant::now();
    let request = format!("{}\n", lab.request("mount", 1, "t1"));
    let mut pipeline = lab.pipeline_command();
    let refused = run(pipeline.env("DMS_LOCK_TIMEOUT", "0.4"), request.as_bytes());
    let answer = refused.expect(1).line();
    assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
    let text = answer["error_msg"].as_str().unwrap_or_default();
    assert!(text.contains("timeout") && text.contains("Could not acquire lock"), "{text}");
    assert!(start.elapsed() >= Duration::from_millis(400));
    lab.assert_gone("t1");
    // It is on record, and nothing else is.
    let history = lab.history("t1");
    assert_eq!((history.len(), &history[0]["status"]), (1, &"error".into()), "{history:?}");
    assert_eq!(lab.users("t1"), [0; 0]);

    holder.release();
    lab.mount(1, "t1");
}

#[test]
fn different_targets_proceed_side_by_side() {
    let lab = Lab::new();
    let holder = lab.hold(&["target.t1"]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.mount(1, "t1"));
        for target in ["t2", "t3"] {
            lab.mount(1, target);
            lab.unmount(1, target);
        }
        assert!(!waiting.is_finished(), "t1 did not wait for its lock");
        holder.release();
        waiting.join().expect("t1 is mounted once its lock is free");
    });
    lab.unmount(1, "t1");
}

#[test]
fn what_was_written_is_complete_after_the_last_unmount() {
    let lab = Lab::new();
    for round in 0..5_u8 {
        lab.mount(1, "t1");
        let data: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8 ^ round).collect();
        let name = format!("big-{round}");
        fs::write(lab.mount_point("t1").join(&name), &data).expect("it is mounted");
        lab.unmount(1, "t1");
        assert!(fs::read(lab.object(&name)).expect("it is in the bucket") == data, "round {round}");
    }
}

#[test]
fn a_busy_mount_is_not_forced_and_can_be_tried_again() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let user = lab.job_in("t1");
    let answer = lab.send(&lab.request("unmount", 1, "t1"));
    assert_eq!(answer["error_code"], "busy", "{answer}");
    let text = answer["error_msg"].as_str().unwrap_or_default();
    assert!(text.contains(&user.pid().to_string()), "the holder is not named: {text}");
    assert!(lab.mounted("t1").is_some());
    assert_eq!(lab.users("t1"), [1], "the binding is gone: nobody would try again");
    user.release();
    eventually("the mount is free", || {
        lab.send(&lab.request("unmount", 1, "t1"))["unmounted"] == true
    });
    lab.assert_gone("t1");
}
