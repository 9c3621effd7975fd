//! One node, with everything that it needs.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::database::Database;
use crate::engine::Engine;
use crate::held::Held;
use crate::process::{Process, processes_with};
use crate::run::{Run, bin_dir, run};

/// The node's name, unless a test gives it one of its own.
pub const NODE: &str = "compute-01";

/// The one key pair that the lab's S3 server knows.
const ACCESS_KEY: &str = "AKLABLABLABLAB";
const SECRET_KEY: &str = "s3cr3t-0f-the-lab";

/// A node in a directory of its own.
pub struct Lab {
    /// The node's name.
    pub node: String,
    root: PathBuf,
    server: Child,
    port: u16,
    engine: Engine,
}

impl Lab {
    /// A fresh node. The test fails, and is not skipped, where it cannot run.
    pub fn new() -> Lab {
        Lab::named(NODE)
    }

    /// A fresh node whose name no other has: for tests that share a broker.
    pub fn unique() -> Lab {
        let mut lab = Lab::new();
        let number = lab.root.display().to_string();
        lab.node = number.rsplit("dms-lab-").next().unwrap_or_default().to_owned();
        lab
    }

    /// A fresh node with this name.
    #[track_caller]
    pub fn named(node: &str) -> Lab {
        Lab::with(node, Engine::chosen())
    }

    /// A fresh node with its ledger in a file, whatever the tests are run with.
    pub fn on_sqlite() -> Lab {
        Lab::with(NODE, Engine::Sqlite)
    }

    /// A fresh node with its ledger on this server.
    pub fn on_mariadb(server: Arc<Database>) -> Lab {
        Lab::with(NODE, Engine::mariadb(server))
    }

    fn with(node: &str, engine: Engine) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests mount: they have to run as root");
        assert!(Path::new("/dev/fuse").exists(), "these tests mount: there is no /dev/fuse");
        // Of one width, so that no lab's path is the beginning of another's.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dms-lab-{}-{number:04}", std::process::id()));
        for dir in ["bucket-root/bucket", "secrets", "mnt"] {
            fs::create_dir_all(root.join(dir)).expect("a temporary directory");
        }
        let root = fs::canonicalize(root).expect("it was made");
        let (server, port) = start_server(&root, 0);
        let lab = Lab { node: node.to_owned(), root, server, port, engine };
        lab.secret("good", |_| ());
        if let Engine::Mariadb { .. } = lab.engine {
            lab.feed("dms-ledger", &["init"], "").expect(0);
        }
        lab
    }

    /// Whether its ledger is on a server.
    pub fn is_on_server(&self) -> bool {
        matches!(self.engine, Engine::Mariadb { .. })
    }

    /// Does this in the ledger's database; returns the rows, a line each.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.engine.sql(&self.root, sql)
    }

    /// So many seconds ago, in the ledger's SQL.
    pub fn ago(&self, seconds: u32) -> String {
        match self.is_on_server() {
            true => format!("UTC_TIMESTAMP(3) - INTERVAL {seconds} SECOND"),
            false => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '-{seconds} seconds')"),
        }
    }

    /// Somebody who writes to the ledger, and does not end.
    #[track_caller]
    pub fn hold_ledger(&self) -> Held {
        let (mut command, sql) = self.engine.writer(&self.root);
        Held::start_with(&mut command, &sql)
    }

    /// A path in the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The queue of the node's listener.
    pub fn queue(&self) -> String {
        format!("dms.{}", self.node)
    }

    /// A path in the lab that was not given out before.
    pub fn fresh_path(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.root.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Where a target is mounted.
    pub fn mount_point(&self, target: &str) -> PathBuf {
        self.root.join("mnt").join(target)
    }

    /// The file behind an object in the bucket.
    pub fn object(&self, name: &str) -> PathBuf {
        self.root.join("bucket-root/bucket").join(name)
    }

    /// Words that must never be seen outside a daemon's environment.
    pub fn secrets(&self) -> [&'static str; 2] {
        [ACCESS_KEY, SECRET_KEY]
    }

    /// Writes a secret, the good one changed by `change`; returns its reference.
    pub fn secret(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut secret = json!({
            "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "bucket": "bucket",
            "region": "us-east-1", "endpoint_url": format!("http://127.0.0.1:{}", self.port),
        });
        change(&mut secret);
        let path = self.root.join("secrets").join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.expect("a new file").write_all(secret.to_string().as_bytes()).expect("room for it");
        format!("file://{}", path.display())
    }

    /// Ends the S3 server and starts it again, on the same port.
    pub fn restart_server(&mut self) {
        self.stop_server();
        (self.server, _) = start_server(&self.root, self.port);
    }

    /// Ends the S3 server.
    pub fn stop_server(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// The environment of this node: its own directories, no other DMS variable.
    pub fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DMS_") {
                command.env_remove(name);
            }
        }
        let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{pipelines}:{path}", bin_dir().display()))
            .env("DMS_STATE_DIR", self.root.join("state"))
            .env("DMS_LOCK_DIR", self.root.join("lock"))
            .env("DMS_RUN_DIR", self.root.join("run"))
            .env("DMS_MOUNT_BASE", self.root.join("mnt"))
            .env("DMS_SECRET_DIR", self.root.join("secrets"))
            .env("DMS_NODE_ID", &self.node)
            .env_remove("KEYSTONE_TOKEN");
        self.engine.environment(command);
    }

    /// A command on this node.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        // Looked up here: exec would use the test's own PATH.
        let at = bin_dir().join(program);
        let mut command = Command::new(if at.exists() { at.as_os_str() } else { program.as_ref() });
        command.args(args);
        self.environment(&mut command);
        command
    }

    /// A shell script on this node, as a user would type it.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Run {
        run(self.command("sh", &["-c", script]).current_dir(&self.root), b"")
    }

    /// Runs a program with this input.
    #[track_caller]
    pub fn feed(&self, program: &str, args: &[&str], input: &str) -> Run {
        run(&mut self.command(program, args), input.as_bytes())
    }

    /// A request, without a mount path.
    pub fn request(&self, action: &str, job: i32, target: &str) -> Value {
        let secret = self.root.join("secrets/good");
        json!({
            "context": {"user_id": "user-1", "tenant_id": "tenant-1"},
            "keystone_token": "lab-token-must-not-leak", "job": {"jobid": job},
            "host": self.node, "action": action,
            "backup_target": {"id": target, "type": "s3", "status": "available",
                "secret_ref": format!("file://{}", secret.display())},
        })
    }

    /// The script that operators call.
    fn pipeline() -> &'static str {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/dms-pipeline")
    }

    /// The node's pipeline, ready to be started.
    pub fn pipeline_command(&self) -> Command {
        self.command(Lab::pipeline(), &[])
    }

    /// A job of its own that stands in the target's mount, and keeps it busy.
    pub fn job_in(&self, target: &str) -> Held {
        Held::start(self.command("sh", &Held::SHELL[1..]).current_dir(self.mount_point(target)))
    }

    /// Somebody who holds locks, as dms-lock takes them.
    #[track_caller]
    pub fn hold(&self, names: &[&str]) -> Held {
        Held::start(&mut self.command("dms-lock", &[names, &["--"], &Held::SHELL].concat()))
    }

    /// Sends one request through the node's pipeline.
    #[track_caller]
    pub fn send(&self, request: &Value) -> Value {
        self.feed(Lab::pipeline(), &[], &format!("{request}\n")).line()
    }

    /// Mounts for a job; the test fails if that does.
    #[track_caller]
    pub fn mount(&self, job: i32, target: &str) -> Value {
        let answer = self.send(&self.request("mount", job, target));
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }

    /// Unmounts for a job; the test fails if that does.
    #[track_caller]
    pub fn unmount(&self, job: i32, target: &str) -> Value {
        let answer = self.send(&self.request("unmount", job, target));
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }

    /// The jobs that use the target, as the ledger has it.
    #[track_caller]
    pub fn users(&self, target: &str) -> Vec<i64> {
        let list = self.feed("dms-ledger", &["list", "--json", "--target-id", target], "");
        let jobs = list.expect(0).lines();
        let mut jobs: Vec<i64> = jobs.iter().filter_map(|row| row["job"].as_i64()).collect();
        jobs.sort_unstable();
        jobs
    }

    /// The target's operations, newest first.
    #[track_caller]
    pub fn history(&self, target: &str) -> Vec<Value> {
        let args = ["history", "--json", "--target-id", target, "--limit", "100000"];
        self.feed("dms-ledger", &args, "").expect(0).lines()
    }

    /// The source of what is mounted for the target, if anything is.
    pub fn mounted(&self, target: &str) -> Option<String> {
        mount_source(&self.mount_point(target))
    }

    /// The daemons that run for the target.
    pub fn daemons(&self, target: &str) -> Vec<Process> {
        let path = self.mount_point(target).display().to_string();
        let mut found = processes_with(&path);
        found.retain(|process| {
            let words = process.command.split(' ');
            process.command.contains("s3fs") && words.into_iter().any(|word| word == path)
        });
        found
    }

    /// All processes of this node.
    pub fn processes(&self) -> Vec<Process> {
        processes_with(&self.root.display().to_string())
    }

    /// Fails the test if a mount, daemon or PID file of the target is there.
    #[track_caller]
    pub fn assert_gone(&self, target: &str) {
        assert_eq!(self.mounted(target), None, "{target} is mounted");
        assert_eq!(self.daemons(target), [], "a daemon of {target} runs");
        for file in [format!("run/s3/{target}.pid"), format!("run/mounts/{target}")] {
            assert!(!self.path(&file).exists(), "{file} is left");
        }
        assert!(!self.mount_point(target).exists(), "the mount point of {target} is left");
    }
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let base = self.root.join("mnt");
        for process in self.processes() {
            if i64::from(process.pid) != i64::from(std::process::id()) {
                process.signal(Signal::SIGKILL);
            }
        }
        self.stop_server();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|path| path.starts_with(&format!("{}/", self.root.display())))
            .collect();
        for path in below.iter().rev() {
            let path = path.replace("\\040", " ").replace("\\134", "\\");
            let _ = Command::new("umount").args(["-l", "--", &path]).output();
        }
        unseal(&base);
        // A mount that could not be taken away is not descended into.
        let _ =
            Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.root).status();
    }
}

fn start_server(root: &Path, port: u16) -> (Child, u16) {
    let key_file = root.join("server-key");
    fs::write(&key_file, SECRET_KEY).expect("room for it");
    let mut server = Command::new(bin_dir().join("dms-test-s3"))
        .arg("--root")
        .arg(root.join("bucket-root"))
        .args(["--access-key", ACCESS_KEY, "--listen", &format!("127.0.0.1:{port}")])
        .arg("--secret-key-file")
        .arg(key_file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
    let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
    (server, port.unwrap_or_else(|| panic!("the S3 server said {line:?}")))
}

/// The source of what is mounted at `path`, the topmost.
pub fn mount_source(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let path = path.to_str().expect("a plain path").replace(' ', "\\040");
    let line = mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some(&path))?;
    line.split(" - ").nth(1)?.split(' ').nth(1).map(str::to_owned)
}

/// Mount points whose mounts have gone without an unmount are sealed still.
pub(crate) fn unseal(below: &Path) {
    let _ = Command::new("chattr").args(["-R", "-f", "-i", "--"]).arg(below).output();
}
