//! Mounts that died, or that nobody uses, and what is left of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dms_tests::{Lab, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{RECONCILE, audit, requests};

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
