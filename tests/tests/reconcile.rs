//! `reconcile` and `audit`: what a crash, a reboot or an operator left behind is found, and the
//! pipeline puts it right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dms_tests::{Lab, Run, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What an operator runs, or a unit at boot.
const RECONCILE: &str = "dms-mount list | dms-ledger reconcile |
    dms-lock --each -- sh -c 'dms-ledger plan | dms-mount | dms-ledger commit'";

/// The requests that it makes, and how it ends.
fn requests(lab: &Lab, args: &str) -> Run {
    lab.shell(&format!("dms-mount list > list && dms-ledger reconcile {args} < list"))
}

fn audit(lab: &Lab) -> Vec<(String, Value)> {
    let run = lab.shell("dms-mount list | dms-ledger audit --json");
    let found: Vec<(String, Value)> = (run.lines().iter())
        .map(|row| (row["what"].as_str().unwrap_or_default().to_owned(), row["job"].clone()))
        .collect();
    assert_eq!(run.code, i32::from(!found.is_empty()), "{run}");
    found
}

/// The mount, its daemon and the run directory are gone, and the rows are of another boot.
fn reboot(lab: &Lab, target: &str) {
    umount2(&lab.mount_point(target), MntFlags::empty()).expect("nobody uses it");
    eventually("the daemon ends", || lab.daemons(target).is_empty());
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    lab.sql("UPDATE backup_target_mount_ledger SET boot = 'the-boot-before'");
}

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

#[test]
fn a_mount_that_died_under_its_jobs_is_mounted_again() {
    let lab = Lab::new();
    for job in [1, 2] {
        lab.mount(job, "t1");
    }
    lab.mount(3, "t2");
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    assert_eq!(audit(&lab), [("no-daemon".into(), json!(1)), ("no-daemon".into(), json!(2))]);

    let answers = lab.shell(RECONCILE);
    let answer = answers.expect(0).line();
    assert_eq!(answer["physically_mounted"], true, "{answer}");
    assert_eq!(answer["plan"], Value::Null);
    fs::write(lab.mount_point("t1").join("x"), "again").expect("it is mounted");
    assert!(lab.object("x").exists(), "the write is not in the bucket");
    assert_eq!(lab.users("t1"), [1, 2]);
    let last = &lab.history("t1")[0];
    assert_eq!(
        (&last["action"], &last["status"], &last["job"]),
        (&json!("settle"), &json!("success"), &Value::Null)
    );
    // Where all is well there is nothing to do.
    assert_eq!(requests(&lab, "").expect(0).stdout, "");
    assert_eq!(audit(&lab), []);
    lab.unmount(1, "t1");
    assert_eq!(lab.unmount(2, "t1")["unmounted"], true);
}

#[test]
fn a_mount_that_nobody_uses_any_more_is_unmounted() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.feed("dms-ledger", &["release", "--target-id", "t1", "--host", &lab.node], "").expect(0);
    assert_eq!(audit(&lab), [("unused".into(), Value::Null)]);
    assert_eq!(lab.shell(RECONCILE).expect(0).line()["unmounted"], true);
    lab.assert_gone("t1");
    assert_eq!(lab.shell(RECONCILE).expect(0).stdout, "");
}

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
fn a_remount_that_cannot_be_had_leaves_the_jobs_and_says_why() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    fs::rename(lab.path("secrets/good"), lab.path("secrets/away")).expect("it is there");
    let answer = lab.shell(RECONCILE).expect(1).line();
    assert_eq!(answer["error_code"], "credentials", "{answer}");
    assert_eq!(lab.users("t1"), [1]);
    fs::rename(lab.path("secrets/away"), lab.path("secrets/good")).expect("it is there");
    assert_eq!(lab.shell(RECONCILE).expect(0).line()["physically_mounted"], true);
    lab.unmount(1, "t1");
}

/// A node whose run directory is where it should be: in memory.
struct InMemory {
    lab: Lab,
}

impl InMemory {
    fn new() -> InMemory {
        let lab = Lab::new();
        let run = lab.path("run");
        fs::create_dir_all(&run).expect("room for it");
        let (source, kind, data) = (Some("run"), Some("tmpfs"), Some("mode=755"));
        mount(source, &run, kind, MsFlags::empty(), data).expect("root may");
        InMemory { lab }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = umount2(&self.lab.path("run"), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_mount_that_died_comes_back_with_the_credentials_that_it_had_and_without_a_token() {
    let node = InMemory::new();
    let lab = &node.lab;
    lab.mount(1, "t1");
    let kept = lab.path("run/s3/t1.cred");
    let mode = fs::metadata(&kept).expect("they are kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kill = || {
        lab.daemons("t1")[0].signal(Signal::SIGKILL);
        eventually("the daemon ends", || lab.daemons("t1").is_empty());
    };
    kill();
    // Where the secret was nobody can read it any more, as without a token.
    fs::rename(lab.path("secrets/good"), lab.path("secrets/away")).expect("it is there");
    // A job shows a token: it has to be let in by that, and is not.
    let mut request = lab.request("mount", 2, "t1");
    let refused = lab.send(&request);
    assert_eq!(refused["error_code"], "credentials", "{refused}");
    // One that shows none is let in by nothing at all.
    request["keystone_token"] = Value::Null;
    let refused = lab.send(&request);
    assert_eq!(refused["error_code"], "credentials", "{refused}");
    let answer = lab.shell(RECONCILE).expect(0).line();
    assert_eq!(answer["physically_mounted"], true, "{answer}");
    fs::write(lab.mount_point("t1").join("x"), "again").expect("it is mounted");
    assert!(lab.object("x").exists());
    // Once more: what came back is kept, too.
    kill();
    assert_eq!(lab.shell(RECONCILE).expect(0).line()["physically_mounted"], true);
    lab.unmount(1, "t1");
    assert!(!kept.exists(), "credentials of what is not mounted");
}

#[test]
fn nothing_is_left_after_an_unmount_although_the_disk_refused_once_to_remove_it() {
    let node = InMemory::new();
    let lab = &node.lab;
    let unmount = lab.request("unmount", 1, "t1");
    fs::write(lab.path("line"), format!("{unmount}\n")).expect("room for it");
    for name in ["s3/t1.cred", "s3/t1.log", "s3/t1.pid", "mounts/t1"] {
        lab.mount(1, "t1");
        let file = lab.path("run").join(name);
        assert!(file.exists(), "{name} is not kept");
        let refuse = "-e inject=unlink,unlinkat:error=EIO:when=1";
        let broken = format!("strace -f -o strace -P {} {refuse}", file.display());
        let answer = lab.shell(&format!("{broken} dms-mount <line")).expect(0).line();
        assert_eq!(answer["unmounted"], true, "{answer}");
        let seen = fs::read_to_string(lab.path("strace")).unwrap_or_default();
        assert!(seen.contains("EIO") && !file.exists(), "{seen}");
        lab.unmount(1, "t1");
    }
    // What it refuses again and again, whoever compares node and ledger removes when it does so no more.
    for name in ["s3/t1.cred", "s3/t1.log", "s3/t1.pid", "mounts/t1"] {
        lab.mount(1, "t1");
        let file = lab.path("run").join(name);
        let refuse = "-e inject=unlink,unlinkat:error=EIO";
        let broken = format!("strace -f -o strace -P {} {refuse}", file.display());
        lab.shell(&format!("{broken} dms-mount <line")).expect(0);
        assert!(file.exists(), "{name} could be removed");
        lab.shell("dms-mount list").expect(0);
        let left = lab.shell("ls run/s3 run/mounts/* 2>/dev/null; true").stdout;
        assert!(!left.contains("t1"), "{name}: {left}");
        lab.unmount(1, "t1");
    }
    // One in four, whichever it is: what is not there need not be removed, and is not asked for twice.
    for when in ["1+4", "2+4", "3+4", "4+4"] {
        lab.mount(1, "t1");
        let refuse = format!("-e inject=unlink,unlinkat:error=EIO:when={when}");
        lab.shell(&format!("strace -f -o strace {refuse} dms-mount <line")).expect(0);
        let left = lab.shell("ls run/s3 run/mounts/* 2>/dev/null; true").stdout;
        let seen = fs::read_to_string(lab.path("strace")).unwrap_or_default();
        assert!(!left.contains("t1"), "{when}: {left}\n{seen}");
        lab.unmount(1, "t1");
    }
}

#[test]
fn what_is_mounted_keeps_its_files_although_its_record_is_lost() {
    let node = InMemory::new();
    let lab = &node.lab;
    let mut request = lab.request("mount", 1, "t1");
    // Nobody would look for it there.
    let path = lab.path("mnt/elsewhere/t1").display().to_string();
    request["backup_target"]["filesystem_export_mount_path"] = path.into();
    assert_eq!(lab.send(&request)["status"], "success");
    fs::remove_file(lab.path("run/mounts/t1")).expect("it is on record");
    lab.shell("dms-mount list").expect(0);
    for name in ["s3/t1.cred", "s3/t1.pid"] {
        assert!(lab.path("run").join(name).exists(), "{name} of a mount was removed");
    }
    lab.unmount(1, "t1");
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
