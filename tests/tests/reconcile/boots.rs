//! What a reboot has ended, and whose rows do not say of which boot they are.

use dms_tests::Lab;
use serde_json::json;

use crate::{RECONCILE, audit, reboot, requests};

#[test]
fn what_a_reboot_has_ended_is_released_without_a_token_and_without_a_request() {
    let lab = Lab::new();
    for job in [1, 2] {
        lab.mount(job, "t1");
    }
    reboot(&lab, "t1");
    assert_eq!(audit(&lab), [("earlier-boot".into(), json!(1)), ("earlier-boot".into(), json!(2))]);
    let run = requests(&lab, "");
    assert_eq!(run.expect(0).stdout, "");
    assert!(run.stderr.contains("job 1 does not use target t1 any more"), "{run}");
    assert_eq!(lab.users("t1"), [0; 0]);
    assert_eq!(audit(&lab), []);
    // The next job begins as if nothing had been.
    assert_eq!(lab.mount(3, "t1")["physically_mounted"], true);
    assert_eq!(lab.unmount(3, "t1")["unmounted"], true);
}

#[test]
fn a_job_that_mounted_in_this_boot_stays_when_those_of_the_one_before_go() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.mount(2, "t1");
    lab.sql(
        "UPDATE backup_target_mount_ledger SET boot = 'the-boot-before', \
         updated_at = '2026-01-02 03:04:05' WHERE jobid = 1",
    );
    lab.shell(RECONCILE).expect(0);
    assert_eq!(lab.users("t1"), [2]);
    assert!(lab.mounted("t1").is_some(), "unmounted under a job");
    assert_eq!(lab.unmount(2, "t1")["unmounted"], true);
}

/// A row as the Python client writes it.
fn python_row(lab: &Lab, job: i32, target: &str, created: &str) {
    lab.sql(&format!(
        "INSERT INTO backup_target_mount_ledger (created_at, updated_at, deleted_at, deleted,
         version, jobid, backup_target_id, host, mounted)
         VALUES ({created}, NULL, {created}, 0, NULL, {job}, '{target}', '{}', 1)",
        lab.node
    ));
}

#[test]
fn rows_of_the_python_client_end_with_the_boot_only_where_nothing_is_mounted() {
    let lab = Lab::new();
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let before = "'2020-01-02 03:04:05'";
    python_row(&lab, 1, "t1", before);
    python_row(&lab, 2, "t2", before);
    python_row(&lab, 3, "t3", "CURRENT_TIMESTAMP");
    lab.mount(9, "t2");
    let run = requests(&lab, "");
    // What it was mounted from is not in its row: t3 waits for the next mount request.
    assert_eq!(run.expect(1).stdout, "");
    assert!(run.stderr.contains("job 3 uses target t3"), "{run}");
    assert_eq!((lab.users("t1"), lab.users("t2"), lab.users("t3")), (vec![], vec![2, 9], vec![3]));
    assert_eq!(audit(&lab), [("not-mounted".into(), json!(3))]);
    lab.unmount(9, "t2");
    assert_eq!(lab.unmount(2, "t2")["unmounted"], true);
}

#[test]
fn a_row_that_the_python_client_mounts_again_is_of_no_earlier_boot() {
    let lab = Lab::new();
    for job in [1, 3] {
        lab.mount(job, "t1");
    }
    reboot(&lab, "t1");
    // One leaves by itself, the other one is released.
    lab.unmount(1, "t1");
    lab.shell(RECONCILE).expect(0);
    assert_eq!(lab.users("t1"), [0; 0]);
    lab.mount(2, "t1");
    // It knows nothing of boots, and sets no times.
    lab.sql(
        "UPDATE backup_target_mount_ledger SET mounted = 1, updated_at = NULL, \
         created_at = '2020-01-02 03:04:05' WHERE jobid IN (1, 3)",
    );
    lab.shell(RECONCILE).expect(0);
    assert_eq!(lab.users("t1"), [1, 2, 3]);
    assert!(lab.mounted("t1").is_some());
}
