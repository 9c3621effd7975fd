//! NFS targets as far as a kernel without an NFS client goes: what mount(8) is told, and what is
//! believed of it. The real thing is in `nfs_guest.rs`.
//!
//! In a mount namespace of the test's own, a stand-in lies over mount.nfs. It keeps how it was
//! called, and does what the host of the export says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dms_tests::{Filter, Lab, Run, eventually, run};
use serde_json::{Value, json};

/// The helper that mount(8) runs.
const HELPER: &str = "/usr/sbin/mount.nfs";

/// A node whose mount.nfs is the stand-in.
struct Node {
    lab: Lab,
}

impl Node {
    fn new() -> Node {
        let lab = Lab::new();
        assert!(Path::new(HELPER).exists(), "{HELPER} is not there");
        let run = run(Command::new("mkfifo").arg(lab.path("release")), b"");
        run.expect(0);
        script(
            &lab.path("mount.nfs"),
            &format!(
                "cd {}\nprintf '%s\\n' \"$@\" >>told\n\
                 case $1 in\n\
                 fail:*) echo \"mount.nfs: Connection refused for $1 on $2\" >&2; exit 32 ;;\n\
                 late:*) echo 'mount.nfs: Connection timed out' >&2; exit 32 ;;\n\
                 mute:*) exit 32 ;;\n\
                 noop:*) exit 0 ;;\n\
                 other:*) exec mount -i -t tmpfs \"$1\" \"$2\" ;;\n\
                 slow:*) sleep 1000 & echo $$ $! >pids; wait ;;\n\
                 leaves:*) setsid sh -c 'echo $$ >left; read x <release' & exec sleep 1000 ;;\n\
                 esac",
                lab.path("").display()
            ),
        );
        // It does what sudo and rootwrap do together: run what comes behind them.
        script(
            &lab.path("sudo"),
            &format!(
                "printf '%s\\n' \"$@\" >{}\nshift 2\nexec \"$@\"",
                lab.path("asked").display()
            ),
        );
        Node { lab }
    }

    /// dms-mount in a namespace where the helper is `helper`.
    fn command(&self, helper: &Path) -> Command {
        let script = "mount --bind \"$0\" /usr/sbin/mount.nfs\n\
                      mount -t tmpfs tmpfs /usr/local/sbin\n\
                      cp \"$1\" /usr/local/sbin/\nexec dms-mount";
        let (helper, sudo) = (helper.display().to_string(), self.lab.path("sudo"));
        let sudo = sudo.display().to_string();
        self.lab.command("unshare", &["-m", "sh", "-ec", script, &helper, &sudo])
    }

    fn node(&self) -> Command {
        self.command(&self.lab.path("mount.nfs"))
    }

    fn request(&self, export: &str, options: &str) -> Value {
        json!({"action": "mount", "backup_target": {"id": "t", "type": "nfs",
            "filesystem_export": export, "nfs_mount_opts": options}})
    }

    fn ask(&self, command: &mut Command, request: &Value) -> (Value, Run) {
        let run = run(command, format!("{request}\n").as_bytes());
        (run.line(), run)
    }

    /// How the helper was called: an argument a line.
    fn told(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.lab.path("told")).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    fn assert_nothing_left(&self) {
        assert!(!self.lab.mount_point("t").exists(), "the mount point is left");
        assert!(!self.lab.path("run/mounts/t").exists(), "the record is left");
    }
}

fn script(path: &PathBuf, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("room for it");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn mount_is_told_the_export_the_path_and_the_options_with_ours() {
    let node = Node::new();
    let options = "rw,sync,hard,intr,nfsvers=4,timeo=600,retrans=2";
    let (answer, _) = node.ask(&mut node.node(), &node.request("noop:/export", options));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    let told = node.told().expect("it was called");
    let path = node.lab.mount_point("t").display().to_string();
    assert_eq!(told[..2], ["noop:/export".to_owned(), path], "{told:?}");
    let at = told.iter().position(|word| word == "-o").expect("there are options");
    let given: Vec<&str> = told[at + 1].split(',').collect();
    for option in options.split(',').chain(["nosuid", "nodev", "noexec"]) {
        assert!(given.contains(&option), "no {option} in {given:?}");
    }
    assert!(!given.iter().any(|option| ["suid", "dev", "exec"].contains(option)), "{given:?}");
}

#[test]
fn mount_is_run_by_rootwrap_where_that_is_set() {
    let node = Node::new();
    let mut command = node.node();
    command.env("DMS_ROOTWRAP_BIN", "/usr/bin/dms-rootwrap");
    command.env("DMS_ROOTWRAP_CONF", "/etc/dms/rootwrap.conf");
    let (answer, _) = node.ask(&mut command, &node.request("noop:/export", "ro"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    let asked = fs::read_to_string(node.lab.path("asked")).expect("sudo was called");
    let path = node.lab.mount_point("t").display().to_string();
    let wanted = [
        "/usr/bin/dms-rootwrap",
        "/etc/dms/rootwrap.conf",
        "mount",
        "-t",
        "nfs",
        "-o",
        "ro,nosuid,nodev,noexec",
        "--",
        "noop:/export",
        &path,
    ];
    assert_eq!(asked.lines().collect::<Vec<_>>(), wanted);
    assert!(node.told().is_some(), "and mount by that");

    let mut half = node.node();
    let half = run(half.env("DMS_ROOTWRAP_BIN", "/usr/bin/dms-rootwrap"), b"");
    assert!(half.expect(100).stderr.contains("DMS_ROOTWRAP_CONF is not set"), "{half}");
}

#[test]
fn what_mount_says_is_the_answer_and_nothing_is_left() {
    let node = Node::new();
    let path = node.lab.mount_point("t").display().to_string();
    for (host, words) in [
        ("fail", format!("NFS mount failed: mount.nfs: Connection refused for fail:/x on {path}")),
        ("late", "NFS mount failed: timeout: mount.nfs: Connection timed out".to_owned()),
        ("mute", "NFS mount failed: mount ended (exit status: 32)".to_owned()),
        ("noop", format!("NFS mount failed: mount said yes, but nothing is mounted at {path}")),
    ] {
        let request = node.request(&format!("{host}:/x"), "");
        let (answer, run) = node.ask(&mut node.node(), &request);
        assert_eq!((text(&answer, "error_msg"), text(&answer, "error_code")), (&*words, "mount"));
        assert!(run.stderr.contains("error: Mount failed: t: NFS mount failed"), "{run}");
        node.assert_nothing_left();
    }
}

#[test]
fn another_file_system_at_the_path_is_no_success_although_mount_says_so() {
    let node = Node::new();
    let (answer, _) = node.ask(&mut node.node(), &node.request("other:/x", ""));
    let words = "NFS mount failed: other:/x (tmpfs) is mounted at";
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(text(&answer, "error_msg").starts_with(words), "{answer}");
}

#[test]
fn without_the_helper_the_answer_says_what_is_missing() {
    let node = Node::new();
    let mut command = node.command(Path::new("/dev/null"));
    let (answer, _) = node.ask(&mut command, &node.request("h:/x", ""));
    assert_eq!(text(&answer, "error_msg"), "NFS mount failed: mount.nfs is not installed");
    node.assert_nothing_left();
}

#[test]
fn a_mount_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let node = Node::new();
    let start = Instant::now();
    let mut command = node.node();
    command.env("DMS_REQUEST_TIMEOUT", "1");
    let (answer, _) = node.ask(&mut command, &node.request("slow:/x", ""));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(text(&answer, "error_msg").starts_with("timeout: mount of slow:/x at "), "{answer}");
    let pids = fs::read_to_string(node.lab.path("pids")).expect("it was called");
    assert_eq!(pids.split_whitespace().count(), 2);
    for pid in pids.split_whitespace() {
        eventually("it is gone", || !is_running(pid));
    }
    node.assert_nothing_left();
    // Nothing holds the target.
    let (answer, _) = node.ask(&mut node.node(), &node.request("fail:/x", ""));
    assert_eq!(answer["error_code"], "mount", "{answer}");
}

#[test]
fn while_a_part_of_a_mount_outlives_its_time_the_target_is_busy() {
    let node = Node::new();
    let mut first = node.node();
    first.env("DMS_REQUEST_TIMEOUT", "1");
    let (answer, _) = node.ask(&mut first, &node.request("leaves:/x", ""));
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    let left = fs::read_to_string(node.lab.path("left")).expect("it was called");
    assert!(is_running(left.trim()));
    // It might mount yet: whose that will be is on record.
    assert!(node.lab.path("run/mounts/t").exists() && node.lab.mount_point("t").exists());
    for action in ["mount", "unmount"] {
        let mut request = node.request("noop:/x", "");
        request["action"] = json!(action);
        let mut second = node.node();
        let (answer, _) = node.ask(second.env("DMS_REQUEST_TIMEOUT", "1"), &request);
        assert_eq!(answer["error_code"], "busy", "{action}: {answer}");
    }
    fs::write(node.lab.path("release"), "go\n").expect("it is read");
    eventually("it ends", || !is_running(left.trim()));
    let mut request = node.request("leaves:/x", "");
    request["action"] = json!("unmount");
    let (answer, _) = node.ask(&mut node.node(), &request);
    assert_eq!(answer["status"], "success", "{answer}");
    node.assert_nothing_left();
}

/// What must not get to mount(8), in spellings that one or the other program would take.
#[rustfmt::skip]
const HOSTILE_OPTIONS: [&str; 74] = [
    "bind", "rbind", "BIND", "Bind", "bind ", " bind", "rw,bind", "rw, bind", "rw,\tbind",
    "rw,bind,ro", "bind=1", "--bind", "-B", "move", "remount", "REMOUNT", "ReMount",
    "rw,remount,suid", "remount=1", "suid", "SUID", "Suid", "nosuid,suid", "suid\0", "s\u{fc}id",
    "dev", "DEV", "rw,dev", "exec", "Exec", "noexec,exec", "user", "users", "USER", "user=root",
    "owner", "group", "nouser", "auto", "noauto", "nofail", "x-systemd.automount", "x-mount.mkdir",
    "X-mount.mkdir", "X-mount.owner=1", "x-initrd.mount", "comment=x", "loop", "offset=1",
    "helper=/tmp/x", "uhelper=x", "shared", "rshared", "private", "slave", "unbindable",
    "context=system_u", "fscontext=x", "addr=10.0.0.1", "mountaddr=10.0.0.1", "mounthost=evil",
    "bg", "BG", "retry=-1", "vers=2", "proto=tcp bind", "rw\nbind", "rw;suid", "rw\\,suid",
    "\"suid\"", "timeo=1\u{2c}suid", "-o", "_rnetdev,suid", "uid=0",
];

#[rustfmt::skip]
const HOSTILE_EXPORTS: [&str; 24] = [
    "-o", "-obind", "--bind", "-t", "--", "-h:/x", "/etc", "/dev/sda", "etc", "host", "host:",
    "host:x", ":/x", "LABEL=x", "UUID=0:/x", "overlay", "nfs://h/x", "h h:/x", "h,suid:/x",
    "[::1]/x", "[::1:/x", "[-o]:/x", "h:/../etc", "h:/a/../../b",
];

#[test]
fn hostile_options_and_exports_start_nothing_and_touch_nothing() {
    let node = Node::new();
    let mut filter = Filter::start(&mut node.node());
    let options = HOSTILE_OPTIONS.map(|options| node.request("h:/x", options));
    let exports = HOSTILE_EXPORTS.map(|export| node.request(export, "rw"));
    assert!(options.len() + exports.len() >= 80);
    for request in options.iter().chain(&exports) {
        let answer = filter.ask(request);
        assert_eq!(answer["error_code"], "validation", "{request}: {answer}");
        let named = ["nfs_mount_opts", "filesystem_export"];
        assert!(named.iter().any(|name| text(&answer, "error_msg").contains(name)), "{answer}");
    }
    assert_eq!(node.told(), None, "mount was run");
    node.assert_nothing_left();
    // It is not that everything is refused.
    let answer = filter.ask(&node.request("[2001:db8::1]:/backups", " rw , vers=4.1,defaults"));
    filter.end();
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert_eq!(node.told().map(|told| told[0].clone()).as_deref(), Some("[2001:db8::1]:/backups"));
}

#[test]
fn a_zfs_target_is_refused() {
    let node = Node::new();
    let request = json!({"action": "mount", "backup_target": {"id": "t", "type": "zfs",
        "filesystem_export": "pool"}});
    let (answer, _) = node.ask(&mut node.node(), &request);
    let words = "this version mounts s3 and nfs targets only, not zfs";
    assert_eq!((text(&answer, "error_code"), text(&answer, "error_msg")), ("validation", words));
}
