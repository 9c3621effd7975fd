//! ZFS targets where no real pool can be had for it: zfs-fuse cannot import read-only, and does not lie
//! on demand. The pools are those of a stand-in for zpool(8), which keeps a list.

use std::fs;

use dms_tests::{Lab, ZfsHost, run};
use serde_json::{Value, json};

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

fn with_options(mut request: Value, options: &str) -> Value {
    request["backup_target"]["zfs_import_opts"] = json!(options);
    request
}

#[test]
fn with_a_stand_in_only_the_operators_word_takes_a_pool_from_somebody_who_has_files_open() {
    let lab = Lab::new();
    let host = ZfsHost::stand_in(&lab, "host-a");
    host.done("mount", 1, "tank");
    fs::write(host.path("busy"), "").expect("room for it");
    let unmount = |policy: &[&str]| {
        let stages =
            ["dms-ledger plan", &format!("dms-mount {}", policy.join(" ")), "dms-ledger commit"];
        let script = stages.join(" | ");
        let mut command = host.command("dms-lock", &["--each", "--", "sh", "-c", &script]);
        run(&mut command, format!("{}\n", host.request("unmount", 1, "tank")).as_bytes()).line()
    };
    for policy in [&[][..], &["--on-busy", "fail"], &["--on-busy", "lazy"]] {
        let answer = unmount(policy);
        assert_eq!(answer["error_code"], "busy", "{policy:?}: {answer}");
    }
    assert!(!host.told().iter().any(|line| line.contains("-f")), "{:?}", host.told());
    assert_eq!((host.pools().len(), lab.users("t")), (1, vec![1]));
    let answer = unmount(&["--on-busy", "force"]);
    assert_eq!(answer["unmount_method"], "force", "{answer}");
    assert_eq!(host.told().last().map(String::as_str), Some("export -f tank"));
    assert_eq!((host.pools().len(), lab.users("t")), (0, vec![]));
}

#[test]
fn with_a_stand_in_readers_import_read_only_and_a_writer_alone_imports_anew() {
    let lab = Lab::new();
    let host = ZfsHost::stand_in(&lab, "host-a");
    let ask = |action: &str, job, options| {
        host.send(&with_options(host.request(action, job, "tank"), options))
    };
    let answer = ask("mount", 1, "ro");
    assert_eq!(
        (&answer["status"], &answer["access"]),
        (&json!("success"), &json!("ro")),
        "{answer}"
    );
    assert!(host.told()[0].contains("-o readonly=on"), "{:?}", host.told());
    assert_eq!(ask("mount", 2, "ro")["reused_existing"], true);
    // Not while another reads.
    let refused = ask("mount", 1, "");
    let words = "pool tank is imported read-only on host-a for job 2";
    assert_eq!((text(&refused, "error_code"), text(&refused, "error_msg")), ("busy", words));
    assert_eq!(ask("unmount", 2, "")["status"], "success");
    let answer = ask("mount", 1, "");
    assert_eq!(
        (&answer["access"], &answer["physically_mounted"]),
        (&json!("rw"), &json!(true)),
        "{answer}"
    );
    let told = host.told();
    let acts: Vec<&str> = told.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(acts, ["import", "export", "import"], "{told:?}");
    // Whoever comes later has what is there, and the ledger knows it.
    assert_eq!(ask("mount", 3, "ro")["access"], "rw");
    assert_eq!(
        lab.sql("SELECT DISTINCT access FROM backup_target_mount_ledger WHERE mounted = 1").trim(),
        "rw"
    );
    assert!(!host.told().iter().any(|line| line.contains("-f")), "{:?}", host.told());
    // By force only if somebody says so.
    fs::write(host.path("busy"), "").expect("room for it");
    ask("unmount", 3, "");
    let busy = ask("unmount", 1, "");
    assert_eq!(busy["error_code"], "busy", "{busy}");
    assert!(
        host.told().iter().filter(|line| line.starts_with("export")).count() > 3,
        "it was not tried again"
    );
    assert!(!host.told().iter().any(|line| line.contains("-f")), "{:?}", host.told());
    fs::remove_file(host.path("busy")).expect("it is there");
    assert_eq!(ask("unmount", 1, "")["unmounted"], true);
    assert_eq!(ask("mount", 1, "force")["status"], "success");
    assert!(
        host.told().last().is_some_and(|line| line.starts_with("import -f ")),
        "{:?}",
        host.told()
    );
}

#[test]
fn with_a_stand_in_an_import_that_cannot_be_had_leaves_what_was_there() {
    let lab = Lab::new();
    let host = ZfsHost::stand_in(&lab, "host-a");
    let ask =
        |action: &str, options| host.send(&with_options(host.request(action, 1, "tank"), options));
    assert_eq!(ask("mount", "ro")["access"], "ro");
    fs::write(host.path("refuse-off"), "").expect("room for it");
    let answer = ask("mount", "");
    assert_eq!(answer["error_code"], "mount", "{answer}");
    let list = fs::read_to_string(host.path("list")).expect("it is there");
    assert!(list.ends_with("\ton\n"), "the reader's pool is gone: {list:?}");
    assert_eq!(ask("unmount", "")["unmounted"], true);
}

#[test]
fn with_a_stand_in_and_on_zfs_fuse_an_exit_status_is_not_believed() {
    let lab = Lab::new();
    let host = ZfsHost::stand_in(&lab, "host-a");
    let answer = host.send(&host.request("mount", 1, "lies"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert_eq!(text(&answer, "error_msg"), "ZFS import failed: no such property");
    // It is imported, and its datasets could not be mounted: it is taken back.
    let answer = host.send(&host.request("mount", 1, "half"));
    assert_eq!(text(&answer, "error_msg"), "ZFS import failed: cannot mount half", "{answer}");
    assert_eq!(host.told().last().map(String::as_str), Some("export half"));
    drop(host);
    let host = ZfsHost::start(&lab, "host-b");
    host.make_pool("tank");
    let mut request = host.request("mount", 1, "tank");
    let options = text(&request["backup_target"], "zfs_import_opts").to_owned();
    request["backup_target"]["zfs_import_opts"] = json!(format!("ro,{options}"));
    let answer = host.send(&request);
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(text(&answer, "error_msg").contains("'readonly' is not a valid"), "{answer}");
    assert_eq!(host.pools(), [] as [String; 0]);
}
