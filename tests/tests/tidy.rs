//! What an operator takes away from the ledger, and what stays.

use dms_tests::Lab;

#[test]
fn a_row_is_forgotten_only_when_it_is_not_in_use_and_comes_back_with_the_next_mount() {
    let lab = Lab::new();
    let forget = |code: i32| {
        let args = ["forget", "--job-id", "1", "--target-id", "t1"];
        lab.feed("dms-ledger", &args, "").expect(code).stderr.clone()
    };
    assert!(forget(1).contains("no record"));
    lab.mount(1, "t1");
    assert!(forget(1).contains("job 1 uses target t1"));
    lab.unmount(1, "t1");
    forget(0);
    assert!(forget(1).contains("no record"), "it is forgotten already");
    let row = |text: &str| {
        let args = ["status", "--json", "--job-id", "1", "--target-id", "t1"];
        assert!(lab.feed("dms-ledger", &args, "").expect(0).stdout.contains(text), "{text}");
    };
    row("\"deleted\":true");
    lab.mount(1, "t1");
    row("\"deleted\":false");
    lab.unmount(1, "t1");
}

#[test]
fn jobs_that_will_not_leave_are_let_go_and_the_next_one_unmounts() {
    let lab = Lab::new();
    for job in [1, 2, 3] {
        lab.mount(job, "t1");
    }
    let released = lab.feed(
        "dms-ledger",
        &["release", "--json", "--target-id", "t1", "--host", &lab.node, "--job-id", "1"],
        "",
    );
    assert_eq!(released.expect(0).lines().len(), 1);
    assert_eq!(lab.users("t1"), [2, 3]);
    lab.feed("dms-ledger", &["release", "--target-id", "t1", "--host", &lab.node], "").expect(0);
    assert_eq!(lab.users("t1"), [0; 0]);
    assert!(lab.mounted("t1").is_some(), "release unmounts nothing");
    lab.mount(4, "t1");
    assert_eq!(lab.unmount(4, "t1")["unmounted"], true);
    lab.assert_gone("t1");
}

#[test]
fn what_is_stale_is_shown_and_then_taken_away_and_what_is_young_stays() {
    let lab = Lab::new();
    for job in [1, 2] {
        lab.mount(job, "t1");
    }
    lab.sql("UPDATE backup_target_mount_ledger SET created_at = '2026-01-01 00:00:00', updated_at = NULL WHERE jobid = 1");
    let old = lab.feed("dms-ledger", &["list", "--json", "--older-than", "24h"], "");
    assert_eq!(old.expect(0).line()["job"], 1);
    let cleanup = |args: &[&str]| {
        lab.feed("dms-ledger", &[&["cleanup", "--json"], args].concat(), "").expect(0).lines()
    };
    assert_eq!(cleanup(&["--hours", "24", "--dry-run"])[0]["job"], 1);
    assert_eq!(lab.users("t1"), [1, 2], "a dry run has done something");
    assert_eq!(cleanup(&["--hours", "24"]).len(), 1);
    assert_eq!(lab.users("t1"), [2]);
    assert_eq!(cleanup(&["--hours", "24"]).len(), 0);
    lab.feed("dms-ledger", &["cleanup"], "").expect(100);
    lab.feed("dms-ledger", &["list", "--older-than", "soon"], "").expect(100);
    assert_eq!(lab.unmount(2, "t1")["unmounted"], true);
}

#[test]
fn the_journal_is_shortened_but_for_what_an_active_binding_comes_from() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    for job in 2..6 {
        lab.mount(job, "t1");
        lab.unmount(job, "t1");
    }
    lab.sql("UPDATE backup_target_mount_operations SET created_at = '2026-01-01 00:00:00'");
    lab.mount(9, "t1");
    lab.feed("dms-ledger", &["cleanup", "--journal-days", "30"], "").expect(0);
    let left: Vec<i64> =
        lab.history("t1").iter().filter_map(|operation| operation["job"].as_i64()).collect();
    assert_eq!(left, [9, 1]);
    lab.unmount(9, "t1");
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
}
