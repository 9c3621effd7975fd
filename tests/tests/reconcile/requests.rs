//! What is to be settled, and by whom.

use std::fs;

use dms_tests::{Lab, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{RECONCILE, audit, requests};

#[test]
fn an_operation_of_unknown_outcome_is_settled() {
    let lab = Lab::new();
    // Mounted, and nobody recorded it.
    lab.shell(
        "dms-lock -- sh -c 'dms-ledger mount --job-id 1 --target-id t1 --target-type s3 \
         --secret-ref file://$DMS_SECRET_DIR/good | dms-mount'",
    )
    .expect(0);
    assert!(lab.mounted("t1").is_some());
    assert_eq!(audit(&lab), [("unsettled".into(), json!(1)), ("unused".into(), Value::Null)]);
    lab.shell(RECONCILE).expect(0);
    lab.assert_gone("t1");
    let statuses: Vec<Value> = lab.history("t1").iter().map(|op| op["status"].clone()).collect();
    assert_eq!(statuses, [json!("success"), json!("error")]);
    assert_eq!(audit(&lab), []);
}

#[test]
fn what_another_ledger_may_use_is_left_alone_until_somebody_says_otherwise() {
    let lab = Lab::new();
    lab.feed("dms-mount", &[], &lab.request("mount", 1, "t1").to_string()).expect(0);
    let left = requests(&lab, "");
    assert_eq!(left.expect(1).stdout, "");
    assert!(left.stderr.contains("target t1 is mounted at"), "{left}");
    assert!(lab.mounted("t1").is_some());
    let all = RECONCILE.replace("reconcile", "reconcile --take-unknown");
    assert_eq!(lab.shell(&all).expect(0).line()["unmounted"], true);
    lab.assert_gone("t1");
}

#[test]
fn what_is_settled_from_another_source_than_its_users_have_is_busy() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    // A request that was made before the job came, and is carried out after.
    let mut settle = requests(&lab, "").expect(0).line();
    settle["backup_target"]["secret_ref"] = json!(lab.secret("another", |_| ()));
    let answer = lab.send(&settle);
    assert_eq!(answer["error_code"], "busy", "{answer}");
    assert_eq!(lab.users("t1"), [1]);
    assert_eq!(lab.shell(RECONCILE).expect(0).line()["physically_mounted"], true);
    lab.unmount(1, "t1");
}

#[test]
fn a_token_goes_with_the_requests_and_no_further() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.feed("dms-ledger", &["release", "--target-id", "t1", "--host", &lab.node], "").expect(0);
    let script = "export KEYSTONE_TOKEN=the-token-of-the-operator; dms-mount list > list
        dms-ledger reconcile < list | tee requests | dms-pipeline";
    let run = lab.shell(script);
    run.expect(0);
    let text = fs::read_to_string(lab.path("requests")).expect("tee wrote it");
    assert!(text.contains("the-token-of-the-operator"), "{text}");
    assert!(!run.stdout.contains("of-the-operator") && !run.stderr.contains("of-the-operator"));
    let kept = lab.sql("SELECT request_data, response_data FROM backup_target_mount_operations");
    assert!(!kept.contains("of-the-operator"), "{kept}");
    lab.assert_gone("t1");
}

#[test]
fn what_it_is_to_settle_only_a_ledger_knows() {
    let lab = Lab::new();
    let mut request = lab.request("settle", 1, "t1");
    request["job"] = Value::Null;
    let bare = lab.feed("dms-mount", &[], &request.to_string()).expect(1).line();
    assert_eq!(bare["error_code"], "validation", "{bare}");
    let planned = lab.send(&request);
    assert_eq!(planned["unmounted"], true, "{planned}");
}

#[test]
fn an_audit_finds_rows_that_contradict_each_other_and_what_is_mounted() {
    let lab = Lab::new();
    for (job, target) in [(1, "t1"), (2, "t1"), (3, "t2"), (4, "t3"), (5, "t4")] {
        lab.mount(job, target);
    }
    assert_eq!(audit(&lab), []);
    let set = |what: &str, job: i32| {
        lab.sql(&format!("UPDATE backup_target_mount_ledger SET {what} WHERE jobid = {job}"));
    };
    set("source = 'file:///another'", 2);
    set(&format!("mount_path = '{}'", lab.mount_point("t1").display()), 3);
    set("deleted = 1", 4);
    umount2(&lab.mount_point("t4"), MntFlags::empty()).expect("nobody uses it");
    eventually("the daemon ends", || lab.daemons("t4").is_empty());
    let tmpfs = (Some("stranger"), Some("tmpfs"), None::<&str>);
    mount(tmpfs.0, &lab.mount_point("t4"), tmpfs.1, MsFlags::empty(), tmpfs.2).expect("root may");
    let found: Vec<String> =
        audit(&lab).into_iter().map(|(what, job)| format!("{what} {job}")).collect();
    let want = [
        "other-source 2",
        "sources-differ 2",
        "foreign 3",
        "path-shared 3",
        "deleted-in-use 4",
        "unused null",
        "foreign 5",
    ];
    assert_eq!(found, want);
    // Without a list there is only what the rows say of each other.
    let rows = lab.feed("dms-ledger", &["audit", "--rows-only", "--json"], "");
    assert_eq!(rows.expect(1).lines().len(), 3, "{rows}");
    let other = lab.feed("dms-ledger", &["audit", "--rows-only", "--host", "other"], "");
    assert_eq!(other.expect(0).stdout, "");
    umount2(&lab.mount_point("t4"), MntFlags::empty()).expect("nobody uses it");
}
