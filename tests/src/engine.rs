//! Where a lab's ledger is: SQLite, or, with `DMS_TEST_DB=mariadb`, a MariaDB of the tests' own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::database::Database;
use crate::run::run;

/// The database of one ledger.
pub(crate) enum Engine {
    /// A file in the lab's state directory.
    Sqlite,
    /// A database of its own.
    Mariadb { server: Arc<Database>, name: String, url: String },
}

impl Engine {
    /// The one that the tests are run with.
    pub(crate) fn chosen() -> Engine {
        match std::env::var("DMS_TEST_DB").as_deref() {
            Ok("mariadb") => Engine::mariadb(Database::shared()),
            Ok("sqlite") | Err(_) => Engine::Sqlite,
            Ok(other) => panic!("DMS_TEST_DB={other} is no engine"),
        }
    }

    /// A new database on this server.
    pub(crate) fn mariadb(server: Arc<Database>) -> Engine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lab_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = server.create(&name);
        Engine::Mariadb { server, name: format!("dms_{name}"), url }
    }

    /// Tells a command of it.
    pub(crate) fn environment(&self, command: &mut Command) {
        if let Engine::Mariadb { url, .. } = self {
            command.env("DMS_DB_URL", url);
        }
    }

    /// Does this in it; returns the rows, a line each.
    #[track_caller]
    pub(crate) fn sql(&self, root: &Path, sql: &str) -> String {
        match self {
            Engine::Mariadb { server, name, .. } => server.sql(name, sql),
            Engine::Sqlite => {
                let mut command = Command::new("sqlite3");
                let said = run(command.arg(root.join("state/ledger.db")), sql.as_bytes());
                said.expect(0).stdout.clone()
            }
        }
    }

    /// A command that reads statements, and keeps others from writing to the ledger from the first
    /// one on, until its input ends; and that first statement, which says "held".
    pub(crate) fn writer(&self, root: &Path) -> (Command, String) {
        match self {
            Engine::Mariadb { server, name, .. } => {
                let tables = ["ledger", "operations", "fences"]
                    .map(|table| format!("backup_target_mount_{table} WRITE"));
                let sql = format!("LOCK TABLES {}; SELECT 'held';\n", tables.join(", "));
                let mut command = server.client(name);
                command.arg("--unbuffered");
                (command, sql)
            }
            Engine::Sqlite => {
                let mut command = Command::new("sqlite3");
                command.arg(root.join("state/ledger.db"));
                (command, "BEGIN EXCLUSIVE; SELECT 'held';\n".to_owned())
            }
        }
    }
}
