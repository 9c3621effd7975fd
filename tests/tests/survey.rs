//! The list of what is mounted on a node, on its way to the ledger: one that is not whole, or of
//! another node or boot, is refused.

use dms_tests::Lab;

#[test]
fn a_list_that_is_not_whole_or_of_another_boot_releases_nobody() {
    let lab = Lab::new();
    for (job, target) in [(1, "t1"), (2, "t2")] {
        lab.mount(job, target);
    }
    lab.sql("UPDATE backup_target_mount_ledger SET boot = 'the-boot-before'");
    let whole = "the list on stdin is not whole";
    for (list, code, words) in [
        // As from a dms-mount that could not read its settings.
        ("DMS_MOUNT_BASE=relative dms-mount list", 111, whole),
        ("true", 111, whole),
        ("dms-mount list | head -n 1", 111, whole),
        ("dms-mount list | sed 1d", 111, whole),
        ("dms-mount list | tail -n 1", 111, whole),
        ("dms-mount list | head -c -20", 100, "line 3 on stdin is not of"),
        ("dms-mount list; dms-mount list", 100, "line 4 on stdin is not of"),
        ("dms-mount list | sed 's/\"boot\":\"[^\"]*/&x/'", 100, "of another boot of this node"),
    ] {
        for command in ["reconcile", "audit"] {
            let run = lab.shell(&format!("{{ {list}; }} | dms-ledger {command}"));
            assert!(run.expect(code).stderr.contains(words), "{run}");
            assert_eq!(run.stdout, "", "{run}");
        }
    }
    assert_eq!((lab.users("t1"), lab.users("t2")), (vec![1], vec![2]));
    // One of a node where nothing is mounted is whole, too.
    let none = lab.shell("DMS_MOUNT_BASE=/nonexistent dms-mount list");
    assert_eq!(none.expect(0).line()["mounts"], 0, "{none}");
}

#[test]
fn the_list_must_be_one_and_of_the_node_that_is_meant() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    for command in ["reconcile", "audit"] {
        let other = lab.shell(&format!("dms-mount list | dms-ledger {command} --host other"));
        let text = format!("the list on stdin is of {}, not of other", lab.node);
        assert!(other.expect(100).stderr.contains(&text), "{other}");
        let garbage = lab.shell(&format!("echo hello | dms-ledger {command}"));
        assert!(garbage.expect(100).stderr.contains("line 1 on stdin"), "{garbage}");
    }
    lab.unmount(1, "t1");
}
