//! A node: a host of its own, made of namespaces, with a directory for what outlives a boot.
//!
//! Network, mounts, processes and name are its own; so are its locks and its records, in memory, as
//! on a host. A reboot ends all of that at once, and keeps the ledger.

mod boot;
mod listener;
mod pools;
mod processes;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use dms_tests::{Run, bin_dir, run};
use serde_json::json;

use crate::exports;
use crate::hub::Hub;
use crate::target::{DATASET, Kind, SHARED};
use boot::Boot;
pub(crate) use processes::{Found, weight_of};

/// What stands for somebody's right to a secret in each request.
pub(crate) const TOKEN: &str = "torture-token-must-not-leak";

/// Where Debian has it.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Who keeps the ledger of a node, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The node itself, in a file.
    File,
    /// The node itself, on the server.
    Server,
    /// The controllers: the node only mounts.
    Act,
    /// It is where the controllers are, and has no listener.
    Controller,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Role::File => "ledger in a file",
            Role::Server => "ledger on a server",
            Role::Act => "ledger at the controllers",
            Role::Controller => "controllers",
        }
    }
}

/// A node, of which there is one boot at a time.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    number: u8,
    root: PathBuf,
    /// What its commands are told beside what all are told.
    environment: Vec<(String, String)>,
    boot: RwLock<Boot>,
    /// How its time of day differs, as libfaketime(1) has it.
    clock: Mutex<Option<&'static str>>,
    /// Its listener is not started again.
    is_over: AtomicBool,
}

impl Node {
    /// One that has just booted.
    pub(crate) fn start(
        hub: &Hub,
        root: &Path,
        number: u8,
        name: &str,
        role: Role,
    ) -> io::Result<Node> {
        let root = root.join(name);
        for dir in ["mnt", "run", "state", "secrets", "logs", "devices"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let boot = Boot::start(&root, name, number, 1)?;
        let environment = environment(hub, &root, name, role);
        Ok(Node {
            name: name.to_owned(),
            role,
            number,
            root,
            environment,
            boot: RwLock::new(boot),
            clock: Mutex::new(None),
            is_over: AtomicBool::new(false),
        })
    }

    fn boot(&self) -> RwLockReadGuard<'_, Boot> {
        self.boot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it from being rebooted while the result lives. Whoever has it does not ask the node for
    /// anything: a reboot that waits would keep both waiting.
    pub(crate) fn stay_up(&self) -> RwLockReadGuard<'_, Boot> {
        self.boot()
    }

    /// How often it has booted.
    pub(crate) fn boot_number(&self) -> u32 {
        self.boot().number
    }

    /// The first process of its namespaces, as the host counts.
    pub(crate) fn init(&self) -> i32 {
        self.boot().init
    }

    /// A path in its directory, as everybody sees it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A path in its memory, as only the node sees it.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        let outer = PathBuf::from(format!("/proc/{}/root", self.init()));
        let inner = self.root.join("run").join(name);
        outer.join(inner.strip_prefix("/").unwrap_or(&inner))
    }

    /// Where a target is mounted.
    pub(crate) fn mount_point(&self, target: &str) -> PathBuf {
        self.root.join("mnt").join(target)
    }

    /// Where the jobs of a target write.
    pub(crate) fn data(&self, target: &str) -> PathBuf {
        let path = self.mount_point(target);
        match Kind::of(target) {
            Kind::Bucket | Kind::Export => path,
            Kind::Pool => path.join(DATASET),
        }
    }

    /// Where the devices of a pool are.
    pub(crate) fn devices(&self, pool: &str) -> PathBuf {
        if pool == SHARED { shared_devices(&self.root) } else { self.path("devices") }
    }

    /// What an export is called by who mounts it.
    pub(crate) fn export(&self, target: &str) -> String {
        let run = self.root.parent().expect("it is in the run's directory");
        exports::source(run, target)
    }

    /// Where the secret of a target is.
    pub(crate) fn secret(&self, target: &str) -> PathBuf {
        self.root.join("secrets").join(target)
    }

    /// A command on this node, in its environment and no other.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, program: &str, args: &[S]) -> Command {
        self.command_of(&self.boot(), program, args)
    }

    fn command_of<S: AsRef<OsStr>>(&self, boot: &Boot, program: &str, args: &[S]) -> Command {
        let mut command = Command::new(crate::built().join("torture"));
        command.args(["enter", &boot.init.to_string(), program]);
        command.args(args).env_clear().current_dir("/").stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        if let Some(shift) = *self.clock.lock().unwrap_or_else(PoisonError::into_inner) {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", shift);
            command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Whatever is started on it from now on has another time of day, or the right one again.
    pub(crate) fn set_clock(&self, shift: Option<&'static str>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = shift;
    }

    /// Runs a shell script on it, to its end.
    pub(crate) fn shell(&self, script: &str) -> Run {
        run(&mut self.command("sh", &["-c", script]), b"")
    }

    /// Its power fails, and comes back: nothing is left but what is in its directory. Before any
    /// request is taken, ledger and node are brought together, as the units have it.
    pub(crate) fn reboot(&self, hub: &Hub, reconcile: impl FnOnce(&dyn Fn(&str) -> Command)) {
        let mut boot = self.boot.write().unwrap_or_else(PoisonError::into_inner);
        hub.history.note("down", json!({"node": self.name, "boot": boot.number}));
        let number = boot.number + 1;
        boot.end();
        match Boot::start(&self.root, &self.name, self.number, number) {
            Ok(next) => *boot = next,
            Err(why) => panic!("{} does not boot: {why}", self.name),
        }
        reconcile(&|script| self.command_of(&boot, "sh", &["-c", script]));
        hub.history.note("up", json!({"node": self.name, "boot": number}));
    }

    /// Ends all of it.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.boot.write().unwrap_or_else(PoisonError::into_inner).end();
    }
}

fn environment(hub: &Hub, root: &Path, name: &str, role: Role) -> Vec<(String, String)> {
    let file = |name: &str| root.join(name).display().to_string();
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines");
    let built = crate::built().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let seconds = hub.options.timeout.to_string();
    let mut environment: Vec<(String, String)> = [
        // Whatever is put before it, the rest is as it was built.
        ("PATH", format!("{}:{built}:{pipelines}:{path}", bin_dir().display())),
        ("LANG", "C.UTF-8".into()),
        ("HOME", "/root".into()),
        ("DMS_NODE_ID", name.into()),
        ("DMS_STATE_DIR", file("state")),
        ("DMS_LOCK_DIR", file("run/lock")),
        ("DMS_RUN_DIR", file("run/dms")),
        ("DMS_MOUNT_BASE", file("mnt")),
        ("DMS_SECRET_DIR", file("secrets")),
        ("DMS_ZFS_DEVICE_DIRS", format!("{}:{}", file("devices"), shared_devices(root).display())),
        ("DMS_REQUEST_TIMEOUT", seconds.clone()),
        ("DMS_LOCK_TIMEOUT", seconds),
        ("DMS_UMOUNT_TIMEOUT", "5".into()),
        ("DMS_RABBITMQ_URL", hub.broker_url.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    // The controllers' requests name paths of other nodes.
    if role == Role::Controller {
        let all = root.parent().unwrap_or(root).display().to_string();
        environment.push(("DMS_MOUNT_BASE".into(), all));
    }
    if matches!(role, Role::Server | Role::Controller) {
        environment.push(("DMS_DB_URL".into(), hub.database_url.clone()));
    }
    environment
}

/// Where several nodes can reach a pool.
fn shared_devices(root: &Path) -> PathBuf {
    root.with_file_name("shared")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
