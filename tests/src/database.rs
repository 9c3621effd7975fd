//! A database for tests that need one to fill, to look into or to stop: a MariaDB of their own.
//!
//! Each [`Database`] has its own directory, port and socket, and all of it is gone when it is
//! dropped. The machine's own server, if there is one, is neither used nor touched.

mod cluster;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::certificates;
use crate::run::run;
use crate::server::Server;

/// How long a start may take. One takes 0.1 s where the machine has nothing else to do.
const START: Duration = Duration::from_secs(60);

/// How long the client may take, in seconds.
const SQL: &str = "60";

/// A MariaDB that runs, or has run.
pub struct Database {
    root: PathBuf,
    port: u16,
    /// As whom it runs.
    user: &'static str,
    options: Vec<String>,
    server: Server,
}

impl Database {
    /// Who may do everything with the databases whose names begin with `dms_`.
    pub const USER: &str = "dms";

    /// The user's password: what a URL must encode is in it.
    pub const PASSWORD: &str = "p@ss/w0rd-must-not-leak";

    /// A fresh server.
    #[track_caller]
    pub fn start() -> Database {
        Database::with_options(&[])
    }

    /// A fresh server with these options of mariadbd, such as `--wait-timeout=1`.
    #[track_caller]
    pub fn with_options(extra: &[&str]) -> Database {
        let mut database = Database::prepare();
        database.options = extra.iter().map(|&option| option.to_owned()).collect();
        database.start_again();
        database
    }

    /// A fresh server that also takes TLS, on the same port.
    #[track_caller]
    pub fn with_tls() -> Database {
        let mut database = Database::prepare();
        certificates::make(&database.root.join("tls"));
        let file = |name: &str| database.tls_file(name).display().to_string();
        database.options = vec![
            format!("--ssl-ca={}", file("ca.pem")),
            format!("--ssl-cert={}", file("server.pem")),
            format!("--ssl-key={}", file("server.key")),
        ];
        database.start_again();
        database
    }

    /// The one database of this test process: it lives while anybody holds it.
    #[track_caller]
    pub fn shared() -> Arc<Database> {
        static SHARED: Mutex<Weak<Database>> = Mutex::new(Weak::new());
        // One that could not be started has failed its own test, and says nothing of the next.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let database = Arc::new(Database::start());
            *shared = Arc::downgrade(&database);
            database
        })
    }

    /// Where it listens, on 127.0.0.1: the same port from its first start to its last.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket. Through it root needs no password.
    pub fn socket(&self) -> PathBuf {
        self.root.join(server::SOCKET)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file of a server that takes TLS: `ca.pem`, the authority; `client.pem` and `client.key`,
    /// of that authority; `stranger.pem` and `stranger.key`, of another.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    /// Creates the database `dms_NAME`; returns its URL, with the password in it.
    #[track_caller]
    pub fn create(&self, name: &str) -> String {
        self.sql("", &format!("CREATE DATABASE `dms_{name}`"));
        let password = urlencoding::encode(Database::PASSWORD);
        format!("mysql://{}:{password}@127.0.0.1:{}/dms_{name}", Database::USER, self.port)
    }

    /// Does this as root, in this database if it is named. Returns the rows, without the names of
    /// the columns: a line each, the columns separated by tabs, and NULL as that word.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        // By input, not by argument: a whole file of statements may be given.
        run(&mut self.client(database), sql.as_bytes()).expect(0).stdout.clone()
    }

    /// A client that is root, reads statements from its input, and ends after a minute.
    pub(crate) fn client(&self, database: &str) -> Command {
        // -k: a client that waits for a server that stands still may not heed SIGTERM.
        let mut command = self.command("timeout");
        command.args(["-k", "1", SQL, server::CLIENT, "--no-defaults", "--user=root"]);
        command.args(["--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg("--socket").arg(self.socket());
        if !database.is_empty() {
            command.arg("--database").arg(database);
        }
        command
    }

    /// What it has been asked, if it has the option `--general-log` or was told to
    /// `SET GLOBAL general_log = ON`.
    pub fn general_log(&self) -> String {
        let log = fs::read(self.root.join(server::GENERAL_LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What it has logged since it was made.
    pub fn log(&self) -> String {
        let log = fs::read(self.root.join(server::LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Stands still: connections stay open, and nothing is answered.
    #[track_caller]
    pub fn suspend(&self) {
        self.server.suspend();
    }

    /// Undoes [`Database::suspend`].
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Stops as an operator would stop it, and waits for that.
    #[track_caller]
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Dies: what it has in its memory, and not in its files, is lost.
    #[track_caller]
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops and starts again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts, with the port and the data that it had, and waits until it can be used.
    #[track_caller]
    pub fn start_again(&mut self) {
        let server = std::mem::replace(&mut self.server, Server::new("database"));
        self.server = server.start(|| self.spawn(), START, || self.is_ready(), || self.tail());
    }

    /// The end of what it logged.
    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.server.end();
        let _ = fs::remove_dir_all(&self.root);
    }
}
