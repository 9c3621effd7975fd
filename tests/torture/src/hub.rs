//! What the nodes have in common: a network namespace with the broker, the database and the S3 server,
//! which the nodes reach over a wire each; the history; and what the run was told.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use dms_tests::{Broker, Database, Queue, run};
use nix::sched::{CloneFlags, unshare};

use crate::Options;
use crate::exports::{self, Exports};
use crate::history::History;
use crate::target;

/// Where the services are, for all nodes.
pub(crate) const ADDRESS: &str = "10.77.0.1";

/// The ports of those that can be chosen.
pub(crate) const BROKER_PORT: u16 = 5672;
pub(crate) const STORAGE_PORT: u16 = 9000;

/// The key pair that the S3 server knows.
pub(crate) const ACCESS_KEY: &str = "AKTORTURETORTURE";
pub(crate) const SECRET_KEY: &str = "s3cr3t-0f-the-torture";

/// The hub's end of a node's wire.
pub(crate) fn near(node: u8) -> String {
    format!("10.77.{node}.1")
}

/// The node's end of it.
pub(crate) fn far(node: u8) -> String {
    format!("10.77.{node}.2")
}

/// Everything but the nodes.
pub(crate) struct Hub {
    pub(crate) options: Options,
    pub(crate) history: History,
    root: PathBuf,
    broker: Mutex<Broker>,
    database: Mutex<Database>,
    storage: Mutex<Storage>,
    exports: Option<Mutex<Exports>>,
    pub(crate) broker_url: String,
    pub(crate) database_url: String,
    pub(crate) database_port: u16,
}

impl Hub {
    /// Makes it. This thread, and those that it starts from now on, are in the hub's network.
    pub(crate) fn start(options: Options, root: &Path, history: History) -> io::Result<Hub> {
        let in_its_own = unshare(CloneFlags::CLONE_NEWNET);
        in_its_own.map_err(|why| io::Error::other(format!("unable to make a network: {why}")))?;
        let script = format!("ip link set lo up; ip addr add {ADDRESS}/32 dev lo");
        run(Command::new("sh").args(["-ec", &script]), b"").expect(0);
        let broker = thread::spawn(|| {
            Broker::with_config(&format!("listeners.tcp.2 = {ADDRESS}:{BROKER_PORT}"), "")
        });
        let database = Database::with_options(&["--bind-address=0.0.0.0"]);
        let storage = Storage::start(root, target::buckets(&options))?;
        let exports =
            if options.exports > 0 { Some(Exports::start(root, &options)?) } else { None };
        let broker = broker.join().expect("there is a broker");
        // A wire that was cut is not noticed otherwise: nothing is said where nothing is asked.
        let parameters = "heartbeat=10&retry_delay=0.2&connection_attempts=20&socket_timeout=5";
        let at = |url: String, port: u16, own: u16| {
            url.replace(&format!("127.0.0.1:{port}"), &format!("{ADDRESS}:{own}"))
        };
        let broker_url = at(broker.url(), broker.port(), BROKER_PORT);
        let database_url = at(database.create("torture"), database.port(), database.port());
        Ok(Hub {
            options,
            history,
            root: root.to_owned(),
            broker_url: format!("{broker_url}?{parameters}"),
            database_url,
            database_port: database.port(),
            broker: Mutex::new(broker),
            database: Mutex::new(database),
            storage: Mutex::new(storage),
            exports: exports.map(Mutex::new),
        })
    }

    /// The object that a file in a target's mount becomes.
    pub(crate) fn object(&self, target: &str, name: &str) -> PathBuf {
        self.root.join("s3").join(target).join(name)
    }

    /// The file at the server that a file in an export's mount is.
    pub(crate) fn exported(&self, target: &str, name: &str) -> PathBuf {
        exports::directory(&self.root).join(target).join(name)
    }

    /// The broker, unless somebody is at it.
    pub(crate) fn broker(&self) -> Option<MutexGuard<'_, Broker>> {
        unless_taken(&self.broker)
    }

    /// The database, unless somebody is at it.
    pub(crate) fn database(&self) -> Option<MutexGuard<'_, Database>> {
        unless_taken(&self.database)
    }

    /// The S3 server, unless somebody is at it.
    pub(crate) fn storage(&self) -> Option<MutexGuard<'_, Storage>> {
        unless_taken(&self.storage)
    }

    /// Whether there is an NFS server at all.
    pub(crate) fn has_exports(&self) -> bool {
        self.exports.is_some()
    }

    /// The NFS server, unless there is none or somebody is at it.
    pub(crate) fn exports(&self) -> Option<MutexGuard<'_, Exports>> {
        self.exports.as_ref().and_then(unless_taken)
    }

    /// What the broker has logged.
    pub(crate) fn broker_log(&self) -> String {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner).log()
    }

    /// Who is still connected, and what is still in a queue.
    pub(crate) fn left_over(&self, with_database: bool) -> Vec<String> {
        let broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<String> =
            broker.connections().into_iter().map(|one| format!("connection {one}")).collect();
        let is_empty = |queue: &Queue| queue.messages == 0 && queue.consumers == 0;
        let queues = broker.queues().into_iter().filter(|queue| !is_empty(queue));
        found.extend(queues.map(|queue| format!("{queue:?}")));
        if !with_database {
            return found;
        }
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT ID, HOST, TIME FROM information_schema.PROCESSLIST WHERE USER = 'dms';";
        found.extend(database.sql("", sql).lines().map(|line| format!("session {line}")));
        found
    }

    /// All rows of the ledger on the server.
    pub(crate) fn rows(&self) -> String {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let select = |table: &str| format!("SELECT * FROM backup_target_mount_{table};");
        database.sql("dms_torture", &[select("ledger"), select("operations")].concat())
    }
}

fn unless_taken<T>(service: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match service.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The S3 server: each target has a bucket of its own, so that what is written to a wrong one is seen.
pub(crate) struct Storage {
    root: PathBuf,
    child: Child,
}

impl Storage {
    fn start(root: &Path, buckets: impl Iterator<Item = String>) -> io::Result<Storage> {
        for bucket in buckets {
            fs::create_dir_all(root.join("s3").join(bucket))?;
        }
        fs::create_dir_all(root.join("s3"))?;
        fs::write(root.join("s3-key"), SECRET_KEY)?;
        Ok(Storage { root: root.to_owned(), child: Storage::spawn(root)? })
    }

    fn spawn(root: &Path) -> io::Result<Child> {
        let mut child = Command::new(crate::built().join("dms-test-s3"))
            .arg("--root")
            .arg(root.join("s3"))
            .args(["--access-key", ACCESS_KEY, "--beyond-loopback"])
            .args(["--listen", &format!("{ADDRESS}:{STORAGE_PORT}")])
            .arg("--secret-key-file")
            .arg(root.join("s3-key"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(child)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Dies, and is there again.
    pub(crate) fn kill_and_start(&mut self, down: std::time::Duration) -> io::Result<()> {
        self.end();
        thread::sleep(down);
        self.child = Storage::spawn(&self.root)?;
        Ok(())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.end();
    }
}
