//! kill -9 of dms-mount at each system call by which it changes something: an unmount takes away all
//! that it had made.

use std::collections::BTreeMap;
use std::fs;

use dms_tests::{Lab, Run, is_long_run, run, was_killed};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

/// The calls at which a mount or an unmount is another than before: files made, written, renamed and
/// removed, the immutable flag, locks, programs started. (Its own process only, not what it starts.)
const CALLS: &str = "mkdir,mkdirat,ioctl,openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat,\
                     flock,clone,clone3,vfork,exit_group";

/// dms-mount under strace, with these words for it.
fn traced(lab: &Lab, request: &Value, words: &str) -> Run {
    let log = lab.path("strace").display().to_string();
    let script = format!("exec strace -qq -o {log} -e trace={CALLS} {words} dms-mount");
    run(&mut lab.command("sh", &["-c", &script]), format!("{request}\n").as_bytes())
}

/// The calls to end it at, each with its number among those of its name. Between two that change
/// something it makes no difference at which of those that only read it ends: they are for a long run.
fn chosen(lab: &Lab) -> Vec<(String, u32)> {
    let log = fs::read_to_string(lab.path("strace")).expect("strace has written it");
    let mut counts = BTreeMap::<String, u32>::new();
    let mut chosen = Vec::new();
    for (call, rest) in log.lines().filter_map(|line| line.split_once('(')) {
        let nth = counts.entry(call.to_owned()).or_default();
        *nth += 1;
        let only_reads = call == "openat" && !rest.contains("O_CREAT") && !rest.contains("O_RDWR");
        if !only_reads || is_long_run() {
            chosen.push((call.to_owned(), *nth));
        }
    }
    assert!(chosen.len() >= 20, "strace has not seen it:\n{log}");
    chosen
}

/// Whose directory the mount point is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Directory {
    Made,
    /// It was there before, and stays.
    Given,
    /// The same, where there is no immutable flag.
    InMemory,
}

impl Directory {
    fn prepare(self, lab: &Lab) {
        if self == Directory::Made {
            return;
        }
        let path = lab.mount_point("t1");
        fs::create_dir_all(&path).expect("room for it");
        if self == Directory::InMemory {
            let (source, kind) = (Some("memory"), Some("ramfs"));
            mount(source, &lab.path("mnt"), kind, MsFlags::empty(), None::<&str>)
                .expect("root may");
            fs::create_dir(path).expect("it is empty");
        }
    }

    /// Nothing is left, and what was there is as it was.
    #[track_caller]
    fn check(self, lab: &Lab, at: &str) {
        if self == Directory::Made {
            return lab.assert_gone("t1");
        }
        assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, Vec::new()), "{at}");
        let file = lab.mount_point("t1").join("of the directory");
        fs::write(&file, "x").unwrap_or_else(|why| panic!("{at}: sealed: {why}"));
        fs::remove_file(&file).expect("it was just made");
    }
}

/// Kills it at each call that it makes for `action`, and lets an unmount take away the rest.
fn cut_everywhere(action: &str, directory: Directory) {
    let lab = Lab::new();
    directory.prepare(&lab);
    let mount = lab.request("mount", 1, "t1");
    let unmount = lab.request("unmount", 1, "t1");
    let request = lab.request(action, 1, "t1");
    let prepare = || {
        if action == "unmount" {
            assert_eq!(lab.feed("dms-mount", &[], &mount.to_string()).line()["status"], "success");
        }
    };
    prepare();
    traced(&lab, &request, "").expect(0);
    let chosen = chosen(&lab);
    lab.feed("dms-mount", &[], &unmount.to_string()).expect(0);
    let mut missed = Vec::new();
    for (call, nth) in chosen {
        prepare();
        traced(&lab, &request, &format!("-e inject={call}:signal=SIGKILL:when={nth}"));
        if !was_killed(&lab.path("strace")) {
            missed.push(format!("{call} {nth}"));
        }
        let run = lab.feed("dms-mount", &[], &unmount.to_string());
        let at = format!("{action}, {directory:?}: ended at {call} {nth}");
        assert_eq!(run.line()["status"], "success", "{at}: {run}");
        assert!(!run.stderr.contains("behind"), "{at}: {run}");
        directory.check(&lab, &at);
    }
    // A look more or less at what is just being started.
    assert!(missed.len() <= 5, "it did not end at {missed:?}");
}

#[test]
fn a_mount_can_end_at_any_call() {
    cut_everywhere("mount", Directory::Made);
}

#[test]
fn a_mount_on_a_directory_that_was_there_can_end_at_any_call() {
    cut_everywhere("mount", Directory::Given);
}

#[test]
fn a_mount_where_no_directory_can_be_sealed_can_end_at_any_call() {
    cut_everywhere("mount", Directory::InMemory);
}

#[test]
fn an_unmount_can_end_at_any_call() {
    cut_everywhere("unmount", Directory::Made);
}

#[test]
fn an_unmount_from_a_directory_that_was_there_can_end_at_any_call() {
    cut_everywhere("unmount", Directory::Given);
}
