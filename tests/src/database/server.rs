//! What a MariaDB needs to be by itself: files, options and tables of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Database;
use crate::ports;
use crate::run::run;
use crate::server::Server;

/// Where Debian has it, and what its tables are made from.
const SERVER: &str = "/usr/sbin/mariadbd";
const TABLES: &str = "/usr/share/mysql";
pub(super) const CLIENT: &str = "mariadb";

/// Its files.
pub(super) const SOCKET: &str = "socket";
pub(super) const LOG: &str = "log";
pub(super) const GENERAL_LOG: &str = "general.log";

/// How long it may take to make the tables, in seconds.
const BOOTSTRAP: &str = "60";

/// What makes its first start quick and its directory small: the log is of 96 MiB otherwise.
/// Whether a commit is on the disk before it is answered stays as it is: the answer is yes.
const SMALL: [&str; 8] = [
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=16M",
    // It would set aside 8 TiB of addresses, more than a process of user-mode Linux has.
    "--loose-innodb-buffer-pool-size-max=64M",
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--skip-performance-schema",
    // Several servers at once can exceed what a container may lock for io_uring.
    "--skip-innodb-use-native-aio",
];

impl Database {
    /// A database with a directory, a port, and tables that know its user.
    pub(super) fn prepare() -> Database {
        Database::prepare_with(ports::DATABASES, 1)
    }

    /// The same, with so many ports of this range, from its own on.
    pub(super) fn prepare_with(range: Range<u16>, count: u16) -> Database {
        assert!(Path::new(SERVER).exists(), "there is no {SERVER}: tests/install-deps.sh");
        let (root, port) = ports::claim("database", range, count);
        let (options, server) = (Vec::new(), Server::new("database"));
        let database = Database { root, port, user: "root", options, server };
        for dir in ["data", "tmp"] {
            fs::create_dir(database.root.join(dir)).expect("room for it");
        }
        database.make_tables();
        database
    }

    /// What mariadb-install-db does, but for the help texts; that one takes longer, and would give
    /// a directory of the machine's own server to another user.
    fn make_tables(&self) {
        let mut sql = String::from("CREATE DATABASE mysql;\nUSE mysql;\n");
        // Root is let in without a password.
        sql += "SET @auth_root_socket = NULL;\n";
        for part in ["system_tables", "performance_tables", "system_tables_data"] {
            let path = format!("{TABLES}/mysql_{part}.sql");
            sql += &fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
        }
        let (user, password) = (Database::USER, Database::PASSWORD);
        // And by nothing but the socket.
        sql += "DELETE FROM global_priv WHERE User = 'root' AND Host <> 'localhost';\n";
        sql += "DELETE FROM proxies_priv;\n";
        // It is told to read the grants first: without them there are no users.
        sql += "FLUSH PRIVILEGES;\n";
        sql += &format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}';\n");
        sql += &format!("GRANT ALL ON `dms\\_%`.* TO {user}@'%';\n");
        let mut bootstrap = self.command("timeout");
        bootstrap.args(["-k", "1", BOOTSTRAP]).args(self.server_args());
        // Nothing is lost if it dies: the test has failed then.
        bootstrap.args(["--bootstrap", "--debug-no-sync"]);
        run(&mut bootstrap, sql.as_bytes()).expect(0);
    }

    /// The program, and the options that all its starts have.
    fn server_args(&self) -> Vec<String> {
        let file = |name: &str| self.root.join(name).display().to_string();
        let mut args: Vec<String> = [SERVER, "--no-defaults"].map(Into::into).into();
        args.push(format!("--user={}", self.user));
        args.push(format!("--datadir={}", file("data")));
        args.push(format!("--tmpdir={}", file("tmp")));
        args.extend(SMALL.map(Into::into));
        args
    }

    /// Starts it.
    pub(super) fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.root.join(LOG));
        let log = log.expect("room for it");
        let file = |name: &str| self.root.join(name).display().to_string();
        let args = self.server_args();
        let mut command = self.command(&args[0]);
        command
            .args(&args[1..])
            // Names are not looked up: else root@localhost is who comes from 127.0.0.1, too.
            .args(["--skip-name-resolve", "--bind-address=127.0.0.1"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", file(SOCKET)))
            .arg(format!("--pid-file={}", file("pid")))
            .arg(format!("--general-log-file={}", file(GENERAL_LOG)))
            // A server's default: what must tell upper case from lower has to say so itself.
            .args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        command.spawn().unwrap_or_else(|why| panic!("{SERVER}: {why}"))
    }

    /// Whether it greets whoever connects. By its socket: a port can be another server's.
    pub(super) fn is_ready(&self) -> bool {
        let greeting = || -> io::Result<[u8; 5]> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut start = [0; 5];
            stream.read_exact(&mut start)?;
            Ok(start)
        };
        // The packet's size, its number 0, and the version of the protocol.
        greeting().is_ok_and(|start| start[3..] == [0, 10])
    }

    /// A command in an environment in which nothing of the machine's own server is named.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8");
        command
    }
}
