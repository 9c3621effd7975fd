//! A node for NFS targets on a kernel without an NFS client: what mount(8) is told, and what is
//! believed of it.
//!
//! In a mount namespace of the test's own, a stand-in lies over mount.nfs. It keeps how it was
//! called, and does what the host of the export says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::run::{Run, run};

/// What must not get to mount(8), in spellings that one or the other program would take.
#[rustfmt::skip]
pub const HOSTILE_OPTIONS: [&str; 74] = [
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

/// The same of exports.
#[rustfmt::skip]
pub const HOSTILE_EXPORTS: [&str; 24] = [
    "-o", "-obind", "--bind", "-t", "--", "-h:/x", "/etc", "/dev/sda", "etc", "host", "host:",
    "host:x", ":/x", "LABEL=x", "UUID=0:/x", "overlay", "nfs://h/x", "h h:/x", "h,suid:/x",
    "[::1]/x", "[::1:/x", "[-o]:/x", "h:/../etc", "h:/a/../../b",
];

/// The helper that mount(8) runs.
const HELPER: &str = "/usr/sbin/mount.nfs";

/// A node whose mount.nfs is the stand-in.
pub struct NfsNode {
    /// The node.
    pub lab: Lab,
}

impl NfsNode {
    /// A fresh one.
    #[track_caller]
    pub fn new() -> NfsNode {
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
                 hangs:*) trap '' TERM; echo $$ >left; read x <release ;;\n\
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
        NfsNode { lab }
    }

    /// dms-mount in a namespace where the helper is `helper`.
    pub fn command(&self, helper: &Path) -> Command {
        let script = "mount --bind \"$0\" /usr/sbin/mount.nfs\n\
                      mount -t tmpfs tmpfs /usr/local/sbin\n\
                      cp \"$1\" /usr/local/sbin/\nexec dms-mount";
        let (helper, sudo) = (helper.display().to_string(), self.lab.path("sudo"));
        let sudo = sudo.display().to_string();
        self.lab.command(
            "unshare",
            &["-m", "--propagation", "slave", "sh", "-ec", script, &helper, &sudo],
        )
    }

    /// dms-mount on this node.
    pub fn node(&self) -> Command {
        self.command(&self.lab.path("mount.nfs"))
    }

    /// A request to mount this.
    pub fn request(&self, export: &str, options: &str) -> Value {
        json!({"action": "mount", "backup_target": {"id": "t", "type": "nfs",
            "filesystem_export": export, "nfs_mount_opts": options}})
    }

    /// Sends it.
    #[track_caller]
    pub fn ask(&self, command: &mut Command, request: &Value) -> (Value, Run) {
        let run = run(command, format!("{request}\n").as_bytes());
        (run.line(), run)
    }

    /// How the helper was called: an argument a line.
    pub fn told(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.lab.path("told")).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Fails the test if a mount point or a record is there.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert!(!self.lab.mount_point("t").exists(), "the mount point is left");
        assert!(!self.lab.path("run/mounts/t").exists(), "the record is left");
    }
}

/// Writes a shell script.
pub fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("room for it");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
}

impl Default for NfsNode {
    fn default() -> Self {
        NfsNode::new()
    }
}
