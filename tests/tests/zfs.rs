//! ZFS targets on one host: pools are imported, shared and exported, on real pools where zfs-fuse can
//! do it. What several processes do to each other is in `zfs_races.rs`, several hosts in `zfs_hosts.rs`.

use std::fs;

use dms_tests::{Held, Lab, ZfsHost, run, script, was_killed};
use serde_json::{Value, json};

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

#[test]
fn a_scan_and_two_jobs_share_a_pool_and_the_last_one_exports_it() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let altroot = host.altroot().display().to_string();
    let first = host.done("mount", 1, "tank");
    assert_eq!(first["success_msg"], format!("ZFS pool imported successfully at {altroot}"));
    assert_eq!((&first["physically_mounted"], &first["access"]), (&json!(true), &json!("rw")));
    assert_eq!(first["mount_path"], altroot);
    assert_eq!(host.pools(), [format!("tank\t{altroot}")]);
    // It would import itself at the host's next boot, when another has it.
    let cached = host.run("zpool", &["get", "cachefile", "tank"]);
    assert!(cached.expect(0).stdout.contains("none"), "{cached}");
    host.run("touch", &[&format!("{altroot}/tank/data")]).expect(0);

    for job in [2, 3] {
        let next = host.done("mount", job, "tank");
        assert_eq!((&next["reused_existing"], &next["access"]), (&json!(true), &json!("rw")));
    }
    // Twice makes no difference.
    host.done("mount", 3, "tank");
    for (job, left) in [(2, 2), (1, 1)] {
        let left_by = host.done("unmount", job, "tank");
        assert_eq!(
            (&left_by["unmounted"], &left_by["active_mounts_remaining"]),
            (&json!(false), &json!(left))
        );
        assert_eq!(host.pools().len(), 1, "it was exported under a job");
        host.run("test", &["-e", &format!("{altroot}/tank/data")]).expect(0);
    }
    let last = host.done("unmount", 3, "tank");
    assert_eq!((&last["unmounted"], &last["unmount_method"]), (&json!(true), &json!("umount")));
    assert_eq!(host.pools(), [] as [String; 0]);
    assert!(!host.altroot().exists() && !host.path("run/mounts/t").exists(), "something is left");
    let exports = "SELECT COUNT(*) FROM backup_target_mount_operations WHERE decision = 'unmount'";
    assert_eq!(lab.sql(exports).trim(), "1");
    let again = host.send(&host.request("unmount", 3, "tank"));
    assert_eq!(again["error_code"], "no_active_mount", "{again}");
}

#[test]
fn a_pool_in_use_is_not_exported_and_its_datasets_stay_mounted() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    host.done("mount", 1, "tank");
    host.run("zfs", &["create", "tank/child"]).expect(0);
    let child = host.altroot().join("tank/child");
    let inside = format!(
        "cd {} && exec {}",
        host.altroot().join("tank").display(),
        "sh -c 'echo held; read x'"
    );
    let job = Held::start(&mut host.command("sh", &["-c", &inside]));
    let busy = host.send(&host.request("unmount", 1, "tank"));
    assert_eq!(busy["error_code"], "busy", "{busy}");
    assert!(text(&busy, "error_msg").contains(&format!("in use by pid {}", job.pid())), "{busy}");
    assert_eq!(lab.users("t"), [1]);
    host.run("mountpoint", &["-q", &child.display().to_string()]).expect(0);
    job.release();
    host.done("unmount", 1, "tank");
    assert_eq!(host.pools(), [] as [String; 0]);
    assert!(!host.altroot().exists(), "the altroot is left");
}

#[test]
fn what_is_no_pool_or_cannot_be_imported_is_a_clear_error_and_changes_nothing() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    for name in ["a/b", "-f", "a b", "tank@s", "c0t0d0", "mirror", "t,x", "../x"] {
        let answer = host.send(&host.request("mount", 1, name));
        assert_eq!(answer["error_code"], "validation", "{name}: {answer}");
        assert!(text(&answer, "error_msg").contains("filesystem_export"), "{answer}");
    }
    let mut odd = host.request("mount", 1, "tank");
    for options in ["readonly=on", "-f", "device_dir=/etc", "altroot=/", "ro,rw", "device_dir=/dev"]
    {
        odd["backup_target"]["zfs_import_opts"] = json!(options);
        let answer = host.send(&odd);
        assert_eq!(answer["error_code"], "validation", "{options}: {answer}");
        assert!(text(&answer, "error_msg").contains("zfs_import_opts"), "{answer}");
    }
    let unknown = host.send(&host.request("mount", 1, "nope"));
    assert_eq!(unknown["error_code"], "mount", "{unknown}");
    let words = "ZFS import failed: cannot import 'nope': no such pool available";
    assert_eq!(text(&unknown, "error_msg"), words);

    host.make_pool("torn");
    let file = lab.path("dev/torn");
    let whole = fs::read(&file).expect("it was made");
    let noise: Vec<u8> = whole
        .iter()
        .zip(0_u32..)
        .map(|(_, n)| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let middle = whole.len() - (1 << 20);
    fs::write(&file, [&whole[..1 << 19], &noise[1 << 19..middle], &whole[middle..]].concat())
        .expect("room for it");
    let torn = host.send(&host.request("mount", 1, "torn"));
    assert_eq!(torn["error_code"], "mount", "{torn}");
    assert!(
        text(&torn, "error_msg").starts_with("ZFS import failed: cannot import 'torn'"),
        "{torn}"
    );

    assert_eq!(host.pools(), [] as [String; 0]);
    assert!(!host.altroot().exists() && !host.path("run/mounts/t").exists(), "something is left");
    assert_eq!(lab.users("t"), [] as [i64; 0]);
}

#[test]
fn a_pool_that_somebody_has_imported_elsewhere_is_not_touched() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let devices = lab.path("dev").display().to_string();
    host.run("zpool", &["import", "-d", &devices, "-R", "/mnt", "tank"]).expect(0);
    let answer = host.send(&host.request("mount", 1, "tank"));
    assert_eq!(answer["error_code"], "busy", "{answer}");
    assert!(text(&answer, "error_msg").contains("pool tank is imported at /mnt"), "{answer}");
    assert_eq!(host.pools(), ["tank\t/mnt"]);
    // Another pool than the one that is asked for, by its number.
    host.run("zpool", &["export", "tank"]).expect(0);
    host.done("mount", 1, "tank");
    let mut other = host.request("mount", 2, "tank");
    let options = text(&other["backup_target"], "zfs_import_opts").to_owned();
    other["backup_target"]["zfs_import_opts"] = json!(format!("{options},guid=12"));
    let answer = host.send(&other);
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(text(&answer, "error_msg").contains("another pool tank is imported"), "{answer}");
    host.done("unmount", 1, "tank");
}

#[test]
fn two_targets_on_one_pool_are_refused_by_the_ledger_and_by_the_node() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    host.done("mount", 1, "tank");
    let mut second = host.request("mount", 2, "tank");
    second["backup_target"]["id"] = json!("u");
    let answer = host.send(&second);
    let words = "pool tank is in use on host-a as target t, by job 1";
    assert_eq!((text(&answer, "error_code"), text(&answer, "error_msg")), ("busy", words));
    let alone = run(&mut host.command("dms-mount", &[]), format!("{second}\n").as_bytes()).line();
    assert_eq!(alone["error_code"], "busy", "{alone}");
    assert!(
        text(&alone, "error_msg").starts_with("pool tank is in use by target t at "),
        "{alone}"
    );
    host.done("unmount", 1, "tank");
    assert_eq!(host.send(&second)["status"], "success");
}

#[test]
fn what_is_imported_is_listed_and_reconcile_finds_it_as_it_should_be() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    host.done("mount", 1, "tank");
    let list = host.run("dms-mount", &["list"]).expect(0).lines();
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(
        (&list[0]["target"], &list[0]["type"], &list[0]["export"]),
        (&json!("t"), &json!("zfs"), &json!("tank"))
    );
    assert_eq!(
        (&list[0]["path"], &list[0]["access"]),
        (&json!(host.altroot().display().to_string()), &json!("rw"))
    );
    let ps = host.run("dms-mount", &["ps", "--json"]).expect(0).lines();
    assert_eq!((&ps[0]["target"], &ps[0]["mounted"]), (&json!("t"), &json!(true)), "{ps:?}");
    let check = host.run("dms-mount", &["check"]);
    assert!(check.stdout.contains("ok: ZFS targets by /"), "{check}");
    let reconcile = "dms-mount list | dms-ledger reconcile --host host-a";
    let nothing = host.run("sh", &["-c", reconcile]);
    assert_eq!(nothing.expect(0).stdout, "", "{nothing}");
    // Behind our back: it is imported again, as it was asked for.
    host.run("zpool", &["export", "tank"]).expect(0);
    let clean = host.run("sh", &["-c", &format!("{reconcile} | dms-pipeline")]);
    assert_eq!(clean.expect(0).line()["physically_mounted"], true, "{clean}");
    assert_eq!(host.pools().len(), 1);
    host.run("zpool", &["export", "tank"]).expect(0);
    let clean = host.run("dms-mount", &["clean"]);
    assert!(clean.expect(0).stdout.contains("t: its pool is not imported"), "{clean}");
    host.done("unmount", 1, "tank");
}

#[test]
fn a_pool_of_which_nothing_is_mounted_and_nothing_remembered_is_listed_and_joined() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    host.done("mount", 1, "tank");
    host.run("zfs", &["set", "mountpoint=none", "tank"]).expect(0);
    fs::remove_dir_all(host.path("run/mounts")).expect("it is there");
    let list = host.run("dms-mount", &["list"]).expect(0).lines();
    assert_eq!(list[0]["source"], "tank", "{list:?}");
    assert_eq!(list[0]["path"], host.altroot().display().to_string());
    assert_eq!(host.done("mount", 1, "tank")["reused_existing"], true);
    assert_eq!(host.done("unmount", 1, "tank")["unmounted"], true);
    assert_eq!(host.pools(), [] as [String; 0]);
    // Without zfs-fuse there is no list of pools, and still one of mounts.
    let none = ZfsHost::bare(&lab, "host-b");
    none.run("touch", &["/run/zfs/zfs_socket"]).expect(0);
    assert_eq!(none.run("dms-mount", &["list"]).expect(0).lines().len(), 1);
}

#[test]
fn a_pool_whose_import_was_cut_before_its_datasets_were_mounted_has_them_before_a_job_does() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    // Both die between the pool and its datasets, whose turn comes after it.
    let cut = host.path("zpool");
    let text = "[ \"$1\" = import ] || exec /sbin/zpool \"$@\"\n\
                /sbin/zpool \"$@\" && zfs umount -a\nrm \"$0\"\nkill -9 $PPID\n";
    script(&cut, text);
    host.run("cp", &[&cut.display().to_string(), "/usr/local/sbin/"]).expect(0);
    let lost = host.send(&host.request("mount", 1, "tank"));
    assert_eq!(lost["error_code"], "internal", "{lost}");
    assert_eq!(host.pools().len(), 1);
    let data = host.altroot().join("tank").display().to_string();
    assert_ne!(host.run("mountpoint", &["-q", &data]).code, 0);
    assert_eq!(host.done("mount", 1, "tank")["reused_existing"], true);
    host.run("mountpoint", &["-q", &data]).expect(0);
    host.done("unmount", 1, "tank");
    assert_eq!(host.pools(), [] as [String; 0]);
}

#[test]
fn nobody_writes_below_a_dataset_that_is_not_mounted_after_a_power_cut() {
    let lab = Lab::new();
    let mut host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let devices = lab.path("dev").display().to_string();
    host.run("zpool", &["import", "-d", &devices, "-R", "/mnt", "tank"]).expect(0);
    host.run("zfs", &["create", "tank/inner"]).expect(0);
    host.run("zpool", &["export", "tank"]).expect(0);
    host.done("mount", 1, "tank");
    let data = host.altroot().join("tank");
    let kept = format!("of={}", data.join("inner/kept").display());
    host.run("dd", &["if=/dev/zero", "count=1", "conv=fsync", &kept]).expect(0);
    host.die();
    // What it has made on the node's disk is there still.
    let refused = fs::write(data.join("lost"), "").expect_err("nothing is mounted there");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{refused}");
    fs::remove_dir_all(host.path("run")).expect("it is in memory, on a host");
    let host = ZfsHost::start(&lab, "host-a");
    let mut again = host.request("mount", 2, "tank");
    // The lab's hosts have no number that ZFS would know them by.
    let options = format!("{},force", text(&again["backup_target"], "zfs_import_opts"));
    again["backup_target"]["zfs_import_opts"] = options.into();
    let answer = host.send(&again);
    assert_eq!(answer["status"], "success", "{answer}");
    host.run("ls", &[&data.join("inner/kept").display().to_string()]).expect(0);
    host.done("unmount", 1, "tank");
    host.done("unmount", 2, "tank");
    assert!(!data.exists(), "{} is left", data.display());
}

#[test]
fn an_import_that_ends_right_after_its_altroot_was_sealed_leaves_nothing_for_an_unmount() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let devices = lab.path("dev").display().to_string();
    let empty = host.path("empty").display().to_string();
    host.run("zpool", &["import", "-d", &devices, "-R", &empty, "tank"]).expect(0);
    // At the altroot itself; it says that it cannot mount it there now.
    host.run("zfs", &["set", "mountpoint=/", "tank"]);
    host.run("zpool", &["export", "tank"]).expect(0);
    let log = lab.path("strace");
    let traced = |words: &str| {
        let script = format!("exec strace -qq -o {} {words} dms-mount", log.display());
        let request = host.request("mount", 1, "tank").to_string();
        run(&mut host.command("sh", &["-c", &script]), request.as_bytes())
    };
    let unmount = || {
        let request = host.request("unmount", 1, "tank").to_string();
        let answer = run(&mut host.command("dms-mount", &[]), request.as_bytes()).line();
        assert_eq!(answer["status"], "success", "{answer}");
        assert_eq!(host.pools(), [] as [String; 0]);
        assert!(!host.altroot().exists(), "the altroot is left: {answer}");
    };
    assert_eq!(traced("-e trace=rename").line()["status"], "success");
    unmount();
    // The last file that it renames is the record of what it has done.
    let calls = fs::read_to_string(&log).expect("strace has written it");
    let renames = calls.lines().filter(|call| call.starts_with("rename(")).count();
    traced(&format!("-e trace=rename -e inject=rename:signal=SIGKILL:when={renames}"));
    assert!(was_killed(&log));
    host.run("mountpoint", &["-q", &host.altroot().display().to_string()]).expect(0);
    unmount();
}

#[test]
fn without_the_tools_or_their_daemon_the_answer_says_what_is_missing() {
    let lab = Lab::new();
    let host = ZfsHost::bare(&lab, "host-a");
    let answer = host.send(&host.request("mount", 1, "tank"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(text(&answer, "error_msg").starts_with("unable to list the pools: "), "{answer}");
    let check = host.run("dms-mount", &["check"]);
    assert!(check.stdout.contains("warning: no ZFS targets: "), "{check}");
    for dir in ["/sbin", "/usr/sbin"] {
        host.run("mount", &["--bind", "/usr/local/sbin", dir]);
    }
    let answer = host.send(&host.request("mount", 1, "tank"));
    assert_eq!(text(&answer, "error_msg"), "ZFS failed: zpool is not installed", "{answer}");
    let check = host.run("dms-mount", &["check"]);
    assert!(check.stdout.contains("warning: zpool is not installed: no ZFS targets"), "{check}");
}
