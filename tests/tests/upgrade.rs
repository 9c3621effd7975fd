//! A ledger of an earlier version is brought up to date, with every row, and one of a later version
//! is left alone.

use dms_tests::{Lab, Run};

/// Takes the ledger back to what the second version made.
fn downgrade_to_2(lab: &Lab) {
    let index = if lab.is_on_server() { " ON backup_target_mount_operations" } else { "" };
    for statement in [
        &format!("DROP INDEX uq_pending_pool{index}"),
        "ALTER TABLE backup_target_mount_operations DROP COLUMN pending_pool",
        "ALTER TABLE backup_target_mount_operations DROP COLUMN access",
        "UPDATE dms_ledger_about SET value = '2' WHERE name = 'schema_version'",
    ] {
        lab.sql(statement);
    }
}

/// Takes the ledger back to what the first version made.
fn downgrade(lab: &Lab) {
    downgrade_to_2(lab);
    for statement in [
        "ALTER TABLE backup_target_mount_ledger DROP COLUMN boot",
        "ALTER TABLE backup_target_mount_operations DROP COLUMN opened_ms",
        "ALTER TABLE backup_target_mount_operations DROP COLUMN closed_ms",
        "ALTER TABLE backup_target_mount_operations DROP COLUMN waited_ms",
        "DROP TABLE backup_target_mount_totals",
        "UPDATE dms_ledger_about SET value = '1' WHERE name = 'schema_version'",
    ] {
        lab.sql(statement);
    }
}

fn ledger(lab: &Lab, args: &[&str]) -> Run {
    lab.feed("dms-ledger", args, "")
}

#[test]
fn a_ledger_of_the_first_version_is_brought_up_to_date() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let id = lab.sql("SELECT value FROM dms_ledger_about WHERE name = 'uuid'");
    downgrade(&lab);
    let on_a_server = std::env::var_os("DMS_TEST_DB").is_some_and(|engine| engine == "mariadb");
    if on_a_server {
        // Whoever runs a server says when.
        let refused = ledger(&lab, &["list"]);
        let text = "the ledger has schema version 1, and this program needs 3: dms-ledger init";
        assert!(refused.expect(100).stderr.contains(text), "{refused}");
    }
    // Several at once, and again.
    std::thread::scope(|scope| {
        let inits: Vec<_> = (0..4).map(|_| scope.spawn(|| ledger(&lab, &["init"]))).collect();
        for init in inits {
            init.join().expect("it does not panic").expect(0);
        }
    });
    ledger(&lab, &["init"]).expect(0);
    ledger(&lab, &["check"]).expect(0);
    assert_eq!(lab.sql("SELECT value FROM dms_ledger_about WHERE name = 'uuid'"), id);
    assert_eq!(lab.users("t1"), [1]);
    lab.mount(2, "t1");
    lab.unmount(1, "t1");
    assert_eq!(lab.unmount(2, "t1")["unmounted"], true);
    assert_eq!(lab.history("t1").len(), 4);
}

#[test]
fn a_ledger_of_the_second_version_gets_what_keeps_two_hosts_from_one_pool() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    downgrade_to_2(&lab);
    if lab.is_on_server() {
        assert!(ledger(&lab, &["check"]).expect(100).stderr.contains("dms-ledger init"));
    }
    ledger(&lab, &["init"]).expect(0);
    ledger(&lab, &["check"]).expect(0);
    lab.mount(2, "t1");
    lab.unmount(1, "t1");
    assert_eq!(lab.unmount(2, "t1")["unmounted"], true);
}

#[test]
fn an_upgrade_that_was_cut_short_goes_on_where_it_was() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    downgrade(&lab);
    lab.sql("ALTER TABLE backup_target_mount_ledger ADD COLUMN boot VARCHAR(64) NULL");
    lab.sql("ALTER TABLE backup_target_mount_operations ADD COLUMN opened_ms BIGINT NULL");
    ledger(&lab, &["init"]).expect(0);
    ledger(&lab, &["check"]).expect(0);
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
}

#[test]
fn a_ledger_of_a_later_version_is_not_touched() {
    let lab = Lab::new();
    ledger(&lab, &["init"]).expect(0);
    lab.sql("UPDATE dms_ledger_about SET value = '99' WHERE name = 'schema_version'");
    for command in ["init", "list", "check"] {
        let refused = ledger(&lab, &[command]);
        assert!(refused.expect(100).stderr.contains("schema version 99"), "{refused}");
    }
}
