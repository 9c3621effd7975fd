//! Hosts for ZFS targets: each in namespaces of its own, with a zfs-fuse of its own, which serves pools
//! on files that all of them can see.
//!
//! There can be one zfs-fuse for each /var/run/zfs. It does not know how to import read-only (it says
//! so, ends well and imports nothing), nor does it mind that another host has a pool: a
//! [`ZfsHost::stand_in`] has a zpool that reads and writes a list instead.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::{Lab, unseal};
use crate::nfs::script;
use crate::run::{Run, eventually, run};

/// The directories that zfs-fuse wants for itself.
const OWN: &str = "for dir in /run/zfs /var/lock/zfs /var/lib/zfs /etc/zfs /usr/local/sbin; do\n\
                   mkdir -p $dir; mount -t tmpfs tmpfs $dir; done\nhostname \"$0\"\n";

/// A host: mounts and pools of its own, locks and records of its own; the ledger is the lab's.
pub struct ZfsHost<'a> {
    lab: &'a Lab,
    /// Its name, as the ledger has it.
    pub name: String,
    /// The first process of its namespaces: zfs-fuse.
    init: Child,
}

impl<'a> ZfsHost<'a> {
    /// A fresh one.
    #[track_caller]
    pub fn start(lab: &'a Lab, name: &str) -> ZfsHost<'a> {
        let host = ZfsHost::spawn(lab, name, &format!("{OWN}exec zfs-fuse --no-daemon"));
        eventually("zfs-fuse answers", || host.run("zpool", &["list"]).code == 0);
        host
    }

    /// One whose zpool writes down what it is told, does it to a list, and can import read-only. While
    /// there is a file `busy`, no pool can be exported but by force, while there is one `slow`, no import ends, and
    /// with `refuse-off` none is made to write; a pool that is named `lies` is never imported, and one
    /// that is named `half` is imported and not mounted.
    #[track_caller]
    pub fn stand_in(lab: &'a Lab, name: &str) -> ZfsHost<'a> {
        let host = ZfsHost::bare(lab, name);
        let zpool = host.path("zpool");
        script(
            &zpool,
            &format!(
                "cd {}\nfor last; do :; done\ncase $1 in list) ;; *) echo \"$*\" >>told ;; esac\n\
                 case $1 in\nlist) touch list; cat list ;;\n\
                 import)\n  ro=off; root=-\n\
                   case $* in *readonly=on*) ro=on ;; esac\n\
                   while [ $# -gt 0 ]; do [ \"$1\" != -R ] || root=$2; shift; done\n\
                   [ \"$last\" != lies ] || {{ echo \"no such property\" >&2; exit 0; }}\n\
                   while [ -e slow ]; do sleep 0.05; done\n\
                   [ ! -e refuse-$ro ] || {{ echo \"cannot import $last\" >&2; exit 1; }}\n\
                   printf '%s\\t77\\tONLINE\\t%s\\t%s\\n' $last \"$root\" $ro >>list\n\
                   [ \"$last\" != half ] || {{ echo \"cannot mount half\" >&2; exit 1; }} ;;\n\
                 export)\n\
                   [ ! -e busy ] || [ \"$2\" = -f ] || {{ echo \"cannot unmount: pool is busy\" >&2; exit 1; }}\n\
                   grep -v \"^$last\t\" list >new; mv new list ;;\nesac",
                host.root().display()
            ),
        );
        host.run("cp", &[&zpool.display().to_string(), "/usr/local/sbin/"]).expect(0);
        host
    }

    /// One without zfs-fuse: its zpool has nobody to ask.
    #[track_caller]
    pub fn bare(lab: &'a Lab, name: &str) -> ZfsHost<'a> {
        let host = ZfsHost::spawn(lab, name, &format!("{OWN}exec sleep 1000000"));
        eventually("its namespaces are there", || {
            host.run("mountpoint", &["-q", "/usr/local/sbin"]).code == 0
        });
        host
    }

    fn spawn(lab: &'a Lab, name: &str, script: &str) -> ZfsHost<'a> {
        let root = lab.path(name);
        for dir in ["mnt", "run", "lock"] {
            fs::create_dir_all(root.join(dir)).expect("room for it");
        }
        fs::create_dir_all(lab.path("dev")).expect("room for it");
        let log = File::create(root.join("log")).expect("room for it");
        let args = ["--mount", "--propagation", "slave", "--uts", "sh", "-ec", script, name];
        let mut command = lab.command("unshare", &args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        ZfsHost { lab, name: name.to_owned(), init: command.spawn().expect("it is there") }
    }

    fn root(&self) -> PathBuf {
        self.lab.path(&self.name)
    }

    /// A path of the host's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A command on this host.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let init = self.init.id().to_string();
        let inside = ["-t", &init, "--mount", "--uts", "--", program];
        let mut command = self.lab.command("nsenter", &[&inside[..], args].concat());
        command
            .env("DMS_NODE_ID", &self.name)
            .env("DMS_RUN_DIR", self.path("run"))
            .env("DMS_LOCK_DIR", self.path("lock"))
            .env("DMS_MOUNT_BASE", self.path("mnt"))
            .env("DMS_REQUEST_TIMEOUT", "60")
            .env("DMS_UMOUNT_TIMEOUT", "1")
            .env("DMS_ZFS_DEVICE_DIRS", self.lab.path("dev"));
        command
    }

    /// Runs it.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Run {
        run(&mut self.command(program, args), b"")
    }

    /// The node's pipeline.
    pub fn pipeline(&self) -> Command {
        self.command("dms-pipeline", &[])
    }

    /// Makes a pool on a file that all hosts see, and exports it.
    #[track_caller]
    pub fn make_pool(&self, pool: &str) {
        // zfs-fuse answers before it can mount.
        let file = self.lab.path("dev").join(pool);
        File::create(&file).and_then(|file| file.set_len(64 << 20)).expect("room for it");
        let (mount_point, file) = (format!("/{pool}"), file.display().to_string());
        eventually("the pool is made", || {
            let create = ["create", "-f", "-m", &mount_point, "-R", "/mnt", pool, &file];
            let is_made = self.run("zpool", &create).code == 0;
            if !is_made {
                self.run("zpool", &["destroy", "-f", pool]);
            }
            is_made
        });
        // It may say that the pool is made before it has mounted it, and cannot unmount it then.
        eventually("the new pool is exported", || {
            self.run("zpool", &["export", pool]);
            !self.pools().iter().any(|one| one.split('\t').next() == Some(pool))
        });
    }

    /// A request about target `t` of this pool.
    pub fn request(&self, action: &str, job: i32, pool: &str) -> Value {
        let devices = format!("device_dir={}", self.lab.path("dev").display());
        json!({"jobid": job, "host": self.name, "action": action, "backup_target": {
            "id": "t", "type": "zfs", "filesystem_export": pool, "zfs_import_opts": devices}})
    }

    /// Sends it through the node's pipeline.
    #[track_caller]
    pub fn send(&self, request: &Value) -> Value {
        run(&mut self.pipeline(), format!("{request}\n").as_bytes()).line()
    }

    /// Sends a request of this kind; the test fails if it does.
    #[track_caller]
    pub fn done(&self, action: &str, job: i32, pool: &str) -> Value {
        let answer = self.send(&self.request(action, job, pool));
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }

    /// The imported pools: name and altroot.
    #[track_caller]
    pub fn pools(&self) -> Vec<String> {
        let list = self.run("zpool", &["list", "-H", "-o", "name,altroot"]);
        list.expect(0).stdout.lines().map(str::to_owned).collect()
    }

    /// Where the target's pool is imported.
    pub fn altroot(&self) -> PathBuf {
        self.path("mnt").join("t")
    }

    /// What the stand-in was told, beside what it was asked.
    pub fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl ZfsHost<'_> {
    /// Its zfs-fuse is killed, and its pools are as they were.
    pub fn die(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

impl Drop for ZfsHost<'_> {
    fn drop(&mut self) {
        self.die();
        unseal(&self.path("mnt"));
    }
}
