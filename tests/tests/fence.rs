//! An operation that was overtaken never acts, and is never told yes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::SystemTime;

use dms_tests::{Filter, Lab, NODE, Process, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A plan whose owner has ended by the time this returns: the run under dms-lock was its only
/// process.
fn plan(lab: &Lab, action: &str, job: i32) -> String {
    let secret = lab.secret("good", |_| ());
    let mount = if action == "mount" {
        format!("--target-type s3 --secret-ref {secret}")
    } else {
        String::new()
    };
    let run = lab.shell(&format!(
        "dms-lock -- dms-ledger {action} --job-id {job} --target-id t1 --host {NODE} {mount}"
    ));
    run.expect(0).stdout.clone()
}

/// A dms-mount that is stopped before it reads its first line.
fn stopped_mount(lab: &Lab) -> (Child, Process) {
    let mut command = lab.command("dms-mount", &[]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    let process = Process { pid: child.id().cast_signed(), command: String::new() };
    process.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", process.pid);
    eventually("dms-mount is stopped", || {
        fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
    });
    (child, process)
}

fn answer(mut child: Child) -> Value {
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("it answers");
    child.wait().expect("it is ours");
    serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"))
}

#[test]
fn an_unmount_that_was_overtaken_is_stale_and_the_next_jobs_mount_stands() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let (mut late, process) = stopped_mount(&lab);
    let planned = plan(&lab, "unmount", 1);
    late.stdin.take().expect("piped").write_all(planned.as_bytes()).expect("it fits in the pipe");

    // The next job takes the unmount over, and is told that it has its mount.
    lab.mount(2, "t1");
    assert_eq!(lab.users("t1"), [2]);
    process.signal(Signal::SIGCONT);
    let acted = answer(late);
    assert_eq!(acted["error_code"], "stale", "{acted}");

    fs::write(lab.mount_point("t1").join("x"), "mine").expect("the mount stands");
    assert!(lab.object("x").exists());
    let recorded = lab.feed("dms-ledger", &["commit"], &format!("{acted}\n")).expect(1).line();
    assert_eq!(recorded["error_code"], "stale", "{recorded}");
    assert_eq!(lab.users("t1"), [2]);
    lab.unmount(2, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_mount_that_was_overtaken_mounts_nothing_and_binds_nobody() {
    let lab = Lab::new();
    let (mut late, process) = stopped_mount(&lab);
    let planned = plan(&lab, "mount", 1);
    late.stdin.take().expect("piped").write_all(planned.as_bytes()).expect("it fits in the pipe");
    lab.mount(2, "t1");
    lab.unmount(2, "t1");
    process.signal(Signal::SIGCONT);
    let acted = answer(late);
    assert_eq!(acted["error_code"], "stale", "{acted}");
    lab.feed("dms-ledger", &["commit"], &format!("{acted}\n")).expect(1);
    assert_eq!(lab.users("t1"), [0; 0]);
    lab.assert_gone("t1");
}

#[test]
fn a_mount_that_succeeded_after_it_was_taken_over_is_not_told_yes() {
    let lab = Lab::new();
    let planned = plan(&lab, "mount", 1);
    // Its act is in time, but its record comes too late: some command has settled it meanwhile.
    let acted = lab.feed("dms-mount", &[], &planned).expect(0).stdout.clone();
    assert_eq!(lab.users("t1"), [0; 0]);
    let recorded = lab.feed("dms-ledger", &["commit"], &acted).expect(1).line();
    assert_eq!(recorded["error_code"], "stale", "{recorded}");
    assert_eq!(lab.users("t1"), [0; 0]);
    // The job that was told no may ask again to leave; then the mount goes.
    lab.unmount(1, "t1");
    lab.assert_gone("t1");
}

#[test]
fn an_outcome_is_recorded_once_and_a_repeated_commit_changes_nothing() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let acted = lab.shell(&format!(
        "dms-ledger mount --job-id 1 --target-id t1 --host {NODE} --target-type s3 \
         --secret-ref {secret} | dms-mount"
    ));
    for _ in 0..3 {
        let recorded = lab.feed("dms-ledger", &["commit"], &acted.stdout).expect(0).line();
        assert_eq!(recorded["status"], "success", "{recorded}");
    }
    assert_eq!(lab.users("t1"), [1]);
    lab.unmount(1, "t1");
    // The old outcome cannot bring the binding back, and nobody is told that it has.
    let late = lab.feed("dms-ledger", &["commit"], &acted.stdout).expect(1).line();
    assert_eq!(late["error_code"], "stale", "{late}");
    assert_eq!(lab.users("t1"), [0; 0]);
}

#[test]
fn an_unknown_outcome_frees_the_target_and_is_settled_by_the_next_act() {
    let lab = Lab::new();
    let planned: Value = serde_json::from_str(&plan_alive(&lab)).expect("a request");
    let unknown = json!({"status": "error", "error_msg": "timeout", "success_msg": null,
        "error_code": "timeout", "plan": planned["plan"]});
    let recorded = lab.feed("dms-ledger", &["commit"], &unknown.to_string()).expect(1).line();
    assert_eq!(recorded["error_code"], "timeout");
    assert_eq!(lab.history("t1")[0]["status"], "unsettled");
    lab.mount(2, "t1");
    let statuses: Vec<_> = lab.history("t1").iter().map(|op| op["status"].clone()).collect();
    assert_eq!(statuses, [json!("success"), json!("error")]);
    assert_eq!(lab.users("t1"), [2]);
}

/// A plan without a life lock: only its lease says when it is over.
fn plan_alive(lab: &Lab) -> String {
    let secret = lab.secret("good", |_| ());
    let run = lab.shell(&format!(
        "dms-ledger mount --job-id 1 --target-id t1 --host {NODE} --target-type s3 \
         --secret-ref {secret}"
    ));
    run.expect(0).stdout.clone()
}

#[test]
fn a_pending_operation_is_waited_for_no_longer_than_allowed() {
    let lab = Lab::new();
    plan_alive(&lab);
    let mut command = lab.pipeline_command();
    let request = format!("{}\n", lab.request("mount", 2, "t1"));
    let refused = dms_tests::run(command.env("DMS_REQUEST_TIMEOUT", "0.5"), request.as_bytes());
    let answer = refused.expect(1).line();
    assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
    assert!(answer["error_msg"].as_str().is_some_and(|msg| msg.contains("of job 1")), "{answer}");
    lab.assert_gone("t1");
}

#[test]
fn a_lease_that_has_run_out_is_taken_over() {
    let lab = Lab::new();
    // A bound of nearly nothing: the lease is the minute around it; make it an old one.
    plan_alive(&lab);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    let past = now.as_millis() - 1000;
    lab.sql(&format!("UPDATE backup_target_mount_operations SET lease_until = {past}"));
    lab.mount(2, "t1");
    assert_eq!(lab.users("t1"), [2]);
}

#[test]
fn an_operation_of_an_earlier_boot_is_taken_over_at_once() {
    let lab = Lab::new();
    plan_alive(&lab);
    let sql = "UPDATE backup_target_mount_operations SET owner_boot = 'an earlier one'";
    lab.sql(sql);
    lab.mount(2, "t1");
    assert_eq!(lab.users("t1"), [2]);
}

#[test]
fn an_outcome_that_was_lost_on_its_way_does_not_keep_the_target() {
    let lab = Lab::new();
    // An act stage that forgets the plan once: commit cannot record, and the operation stays
    // pending, although its run lives on.
    let answer = r#"{"status":"success","error_msg":null,"success_msg":"done"}"#;
    let script = format!(
        "dms-ledger plan | {{ read -r line; echo '{answer}'; dms-mount; }} | dms-ledger commit"
    );
    let input = format!("{}\n{}\n", lab.request("mount", 1, "t1"), lab.request("mount", 2, "t1"));
    let mut command = lab.command("dms-lock", &["--each", "--", "sh", "-c", &script]);
    let run = dms_tests::run(command.env("DMS_REQUEST_TIMEOUT", "10"), input.as_bytes());
    let answers = run.expect(1).lines();
    assert_eq!(answers[0]["error_code"], "internal", "{run}");
    assert_eq!(answers[1]["status"], "success", "{run}");
    assert_eq!(lab.users("t1"), [2]);
}

#[test]
fn a_slow_commit_behind_a_typed_unmount_still_records_it() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let run = lab.shell(&format!(
        "dms-lock -- dms-ledger unmount --job-id 1 --target-id t1 --host {NODE} \
         | dms-mount >answer; dms-ledger commit <answer"
    ));
    assert_eq!(run.expect(0).line()["unmounted"], true);
    assert_eq!(lab.history("t1")[0]["status"], "success");
}

#[test]
fn an_unmount_that_comes_again_late_does_not_unmount_under_its_job() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // An unmount whose outcome nobody knows; then the job mounts again.
    let mut unmount = lab.request("unmount", 1, "t1");
    unmount["request_id"] = json!("late");
    let planned = lab.feed("dms-ledger", &["plan"], &unmount.to_string()).expect(0).line();
    let unknown = json!({"status": "error", "error_msg": "timeout", "success_msg": null,
        "error_code": "timeout", "plan": planned["plan"]});
    lab.feed("dms-ledger", &["commit"], &unknown.to_string()).expect(1);
    lab.mount(1, "t1");
    let late = lab.send(&unmount);
    assert_eq!(late["error_code"], "stale", "{late}");
    assert!(lab.mounted("t1").is_some(), "unmounted under job 1");
    assert_eq!(lab.users("t1"), [1]);
}

#[test]
fn a_request_whose_outcome_is_unknown_can_be_repeated_with_its_id() {
    let lab = Lab::new();
    let mut mount = lab.request("mount", 1, "t1");
    mount["request_id"] = json!("again");
    let planned = lab.feed("dms-ledger", &["plan"], &mount.to_string()).expect(0).line();
    let unknown = json!({"status": "error", "error_msg": "lost", "success_msg": null,
        "error_code": "internal", "plan": planned["plan"]});
    lab.feed("dms-ledger", &["commit"], &unknown.to_string()).expect(1);
    assert_eq!(lab.send(&mount)["physically_mounted"], true);
    assert_eq!(lab.users("t1"), [1]);
}

#[test]
fn a_mount_that_comes_again_late_does_not_bind_a_job_that_has_left() {
    let lab = Lab::new();
    lab.mount(2, "t1");
    let mut mount = lab.request("mount", 1, "t1");
    mount["request_id"] = json!("late");
    fs::write(lab.path("line"), format!("{mount}\n")).expect("room for it");
    lab.shell("dms-lock -- dms-ledger plan <line >/dev/null").expect(0);
    // Its outcome is unknown to the job, which leaves to be sure; others stay.
    lab.unmount(1, "t1");
    let late = lab.send(&mount);
    assert_eq!(late["error_code"], "stale", "{late}");
    assert_eq!(lab.users("t1"), [2]);
}

/// A pipeline that waits for a word between the act and the record, and that has lost the outcome
/// of `request`, because the ledger could not be written. It lives on.
fn pipeline_that_could_not_record(lab: &Lab, request: &Value) -> Filter {
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let script = "mkfifo go; dms-ledger plan | dms-mount \
        | while read -r line; do echo x >acted; read -r x <go; echo \"$line\"; done \
        | dms-ledger commit";
    let mut command = lab.command("dms-lock", &["--each", "--", "sh", "-c", script]);
    command.current_dir(lab.path("")).env("DMS_REQUEST_TIMEOUT", "2");
    let mut pipeline = Filter::start(&mut command);
    pipeline.tell(request);
    eventually("it has acted", || lab.path("acted").exists());
    let held = lab.hold_ledger();
    fs::write(lab.path("go"), "go\n").expect("it reads");
    assert_eq!(pipeline.answer()["error_code"], "database");
    held.release();
    pipeline
}

#[test]
fn an_outcome_that_cannot_be_recorded_does_not_keep_other_controllers_waiting() {
    let lab = Lab::new();
    let idle = pipeline_that_could_not_record(&lab, &lab.request("mount", 1, "t1"));
    let mut pipeline = lab.pipeline_command();
    pipeline.env("DMS_LOCK_DIR", lab.path("other-locks")).env("DMS_REQUEST_TIMEOUT", "10");
    let request = format!("{}\n", lab.request("mount", 2, "t1"));
    let mounted = dms_tests::run(&mut pipeline, request.as_bytes());
    assert_eq!(mounted.expect(0).line()["status"], "success", "{mounted}");
    assert_eq!(lab.users("t1"), [2]);
    idle.end();
}

#[test]
fn an_operation_that_was_given_up_and_is_repeated_is_not_taken_from_its_run() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["request_id"] = json!("again");
    let mut pipeline = pipeline_that_could_not_record(&lab, &request);
    fs::remove_file(lab.path("acted")).expect("it was made");
    // The same request, in the same run: it is pending anew.
    pipeline.tell(&request);
    eventually("it has acted", || lab.path("acted").exists());
    assert_eq!(lab.history("t1")[0]["status"], "pending", "taken over while its run is at it");
    fs::write(lab.path("go"), "go\n").expect("it reads");
    assert_eq!(pipeline.answer()["status"], "success");
    assert_eq!(lab.users("t1"), [1]);
    pipeline.end();
}
