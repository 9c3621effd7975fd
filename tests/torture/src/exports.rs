//! The NFS server of a run: the kernel's, in the hub's network, with a directory for each export.
//!
//! It has a mount namespace of its own for the files of its programs. The directories have to lie on a
//! file system that can be exported, such as a tmpfs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dms_tests::{Run, eventually, run};

use crate::{Options, hub, target};

/// Its threads.
const THREADS: &str = "4";

/// What it is made of. After it was away, it waits for those who have files open, by version 4, for ten
/// seconds: the least that it can be told.
const START: &str = "\
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/nfs
mkdir -p /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/sm.bak
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpcbind -w
exec rpc.mountd --foreground
";

/// A server that runs, or is away. Its programs have namespaces of their own.
pub(crate) struct Exports {
    directory: PathBuf,
    /// Who answers those who mount.
    mountd: Child,
}

/// Where the exports lie.
pub(crate) fn directory(run: &Path) -> PathBuf {
    run.join("exports")
}

/// Every other one is mounted by version 4, for which what is exported is the root of all names.
fn is_version_4(target: &str) -> bool {
    target.bytes().last().is_some_and(|digit| digit % 2 == 1)
}

/// What an export is called by who mounts it.
pub(crate) fn source(run: &Path, target: &str) -> String {
    let root = if is_version_4(target) { PathBuf::from("/") } else { directory(run) };
    format!("{}:{}", hub::ADDRESS, root.join(target).display())
}

/// How it is mounted. Locks are not asked for: by version 3 they need a daemon on each node.
pub(crate) fn mount_options(target: &str) -> &'static str {
    if is_version_4(target) { "hard,vers=4" } else { "hard,vers=3,nolock" }
}

impl Exports {
    /// Starts it in the network of whoever calls.
    pub(crate) fn start(run: &Path, options: &Options) -> io::Result<Exports> {
        let directory = directory(run);
        for export in target::exports(options) {
            fs::create_dir_all(directory.join(export))?;
        }
        let mut mountd = Command::new("unshare");
        mountd.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        mountd.args(["sh", "-ec", START]);
        let mountd = mountd.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let exports = Exports { directory, mountd };
        eventually("mountd is there", || {
            exports.shell("rpcinfo -T tcp 127.0.0.1 mountd").code == 0
        });
        exports.come_back();
        Ok(exports)
    }

    /// Who asks for anything has no answer any more.
    pub(crate) fn go_away(&self) {
        self.shell("rpc.nfsd 0 && exportfs -ua").expect(0);
    }

    /// It answers again; returns when files can be opened by version 4, too. Exported first: else it
    /// would not know the files that it is asked for.
    pub(crate) fn come_back(&self) {
        let options = "rw,insecure,no_subtree_check,no_root_squash,fsid=0";
        let export = format!("exportfs -o {options} '*:{}'", self.directory.display());
        self.shell(&format!("{export} && rpc.nfsd {THREADS}")).expect(0);
        eventually("the server's grace is over", || {
            self.shell("grep -q Y /proc/fs/nfsd/v4_end_grace").code == 0
        });
    }

    fn shell(&self, script: &str) -> Run {
        let pid = self.mountd.id().to_string();
        run(Command::new("nsenter").args(["-t", &pid, "-m", "sh", "-c", script]), b"")
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        // The threads are the kernel's, and would go on. Its programs end with their namespace.
        self.shell("rpc.nfsd 0; exportfs -ua");
        let _ = self.mountd.kill();
        let _ = self.mountd.wait();
    }
}
