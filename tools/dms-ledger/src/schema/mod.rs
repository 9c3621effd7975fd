//! The tables.
//!
//! `backup_target_mount_ledger` is the table of the Python client, which reads and writes it too:
//! its columns and index names are kept, ours may be NULL. `backup_target_mount_operations` is the
//! journal. Beside them the counters of the fences, and a page about the ledger itself.

mod adopt;
mod mysql;
mod sqlite;

pub(crate) use mysql::MYSQL;
pub(crate) use sqlite::SQLITE;

use std::borrow::Cow;

use crate::store::{Result, Store, StoreError, params, transaction};

/// The version of the tables below.
const VERSION: &str = "3";

/// The versions before, which `init` brings up to date.
const EARLIER: [&str; 2] = ["1", "2"];

const BINDINGS: &str = "backup_target_mount_ledger";
const JOURNAL: &str = "backup_target_mount_operations";
const FENCES: &str = "backup_target_mount_fences";
const TOTALS: &str = "backup_target_mount_totals";
const ABOUT: &str = "dms_ledger_about";

/// What engines put in different words.
pub(crate) struct Dialect {
    /// Makes each table that is not there.
    tables: &'static [&'static str],
    /// Whether the ledger is a file of ours, made when it is first used.
    is_embedded: bool,
    /// How a table of the Python client gets an id, if it can.
    id: Option<&'static str>,
    /// What time it is: as in the columns that people read, and in milliseconds since 1970.
    now_text: &'static str,
    now_millis: &'static str,
    /// Counts the fence of a target on a host up, and says where it is then.
    pub(crate) count_fence: &'static str,
    /// Makes the ids of such a table compare by their bytes.
    bytewise: &'static [&'static str],
}

impl Dialect {
    /// A statement in the engine's words for what time it is.
    pub(crate) fn spell<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if !sql.contains("NOW_") {
            return sql.into();
        }
        sql.replace("NOW_TEXT", self.now_text).replace("NOW_MILLIS", self.now_millis).into()
    }
}

/// The tables, in the order in which the dialects make them.
const TABLES: [&str; 5] = [BINDINGS, JOURNAL, FENCES, TOTALS, ABOUT];

/// The columns that tables of an earlier version lack.
const ADDED: [(&str, &str, &str); 6] = [
    (BINDINGS, "boot", "VARCHAR(64) NULL"),
    (JOURNAL, "opened_ms", "BIGINT NULL"),
    (JOURNAL, "closed_ms", "BIGINT NULL"),
    (JOURNAL, "waited_ms", "BIGINT NULL"),
    (JOURNAL, "access", "VARCHAR(16) NULL"),
    (JOURNAL, "pending_pool", "VARCHAR(255) NULL"),
];

/// The constraint that they lack: one pending operation on all hosts that is to write to a pool.
const ADDED_KEY: (&str, &str, &str) = (JOURNAL, "uq_pending_pool", "pending_pool");

/// The constraints that the protocol stands on.
const KEYS: [(&str, &str); 4] = [
    (BINDINGS, "uq_job_target_host"),
    (JOURNAL, "uq_pending"),
    (JOURNAL, "uq_pending_path"),
    (JOURNAL, "uq_pending_pool"),
];

/// Table, name and columns of every index that is no constraint of its table.
const INDEXES: [(&str, &str, &str); 18] = [
    (BINDINGS, "idx_backup_target_id", "backup_target_id"),
    (BINDINGS, "idx_jobid", "jobid"),
    (BINDINGS, "idx_job_id", "jobid"),
    (BINDINGS, "idx_host", "host"),
    (BINDINGS, "idx_job_target", "jobid, backup_target_id"),
    (BINDINGS, "idx_mounted_host", "mounted, host"),
    (BINDINGS, "idx_deleted", "deleted"),
    (BINDINGS, "idx_target_host_mounted", "backup_target_id, host, mounted"),
    (BINDINGS, "idx_host_mounted", "host, mounted"),
    (BINDINGS, "idx_target_mounted", "backup_target_id, mounted"),
    (JOURNAL, "operations_idx_target_created", "backup_target_id, created_at"),
    (JOURNAL, "operations_idx_job_target", "job_id, backup_target_id"),
    (JOURNAL, "operations_idx_job_created", "job_id, created_at"),
    (JOURNAL, "operations_idx_host_created", "host, created_at"),
    (JOURNAL, "operations_idx_status_created", "status, created_at"),
    (JOURNAL, "operations_idx_created", "created_at"),
    (JOURNAL, "operations_idx_pending", "pending"),
    (JOURNAL, "operations_idx_target_host_status", "backup_target_id, host, status"),
];

/// Checks that there is a ledger that this program knows: another one is not touched. One that is
/// a file of ours is made if it is not there. Returns the ledger's id.
pub(crate) fn open(store: &mut dyn Store, new_id: &str) -> Result<String> {
    if let Some(id) = id_of_ours(store) {
        return Ok(id);
    }
    let found = version(store)?;
    let is_old = |version: &str| EARLIER.contains(&version);
    match found.as_deref() {
        Some(VERSION) => {}
        Some(version) if !is_old(version) => return Err(newer(version)),
        _ if store.dialect().is_embedded => init(store, new_id)?,
        Some(version) => {
            return Err(unusable(format!(
                "the ledger has schema version {version}, and this program needs {VERSION}: \
                 dms-ledger init"
            )));
        }
        None => return Err(unusable("there is no ledger yet: dms-ledger init".into())),
    }
    about(store, "uuid")?.ok_or_else(|| StoreError::Failed("the ledger has no id".into()))
}

/// The id of a ledger of this version. That is asked first, and at once, since each command does; where
/// there is none, or no answer, there is more to ask.
fn id_of_ours(store: &mut dyn Store) -> Option<String> {
    let rows = store.query("SELECT name, value FROM dms_ledger_about", &[]).ok()?;
    let value = |name: &str| rows.iter().find(|row| row.text(0).as_deref() == Some(name))?.text(1);
    value("schema_version").filter(|version| version == VERSION)?;
    value("uuid")
}

/// Makes the ledger, or what is missing of it. Safe to run again, and by two at once.
pub(crate) fn init(store: &mut dyn Store, new_id: &str) -> Result<()> {
    store.alone(&mut |store| {
        match version(store)? {
            Some(version) if version != VERSION && !EARLIER.contains(&version.as_str()) => {
                return Err(newer(&version));
            }
            Some(_) => {}
            None => check_empty(store)?,
        }
        make_tables(store)?;
        transaction(store, |store| {
            for (name, value) in [("schema_version", VERSION), ("uuid", new_id)] {
                if about(store, name)?.is_none() {
                    let insert = "INSERT INTO dms_ledger_about (name, value) VALUES (?, ?)";
                    store.execute(insert, params![name, value])?;
                }
            }
            // Last: whoever is stopped before begins again.
            let update = "UPDATE dms_ledger_about SET value = ? WHERE name = 'schema_version'";
            store.execute(update, params![VERSION]).map(|_| ())
        })
    })
}

/// The statements that make a ledger with this id where there is nothing, for whoever may.
pub(crate) fn statements(dialect: &Dialect, id: &str) -> Vec<String> {
    let about = [("schema_version", VERSION), ("uuid", id)].map(|(name, value)| {
        format!("INSERT INTO {ABOUT} (name, value) VALUES ('{name}', '{value}')")
    });
    let tables = dialect.tables.iter().map(|table| (*table).to_owned());
    let indexes = INDEXES.iter().map(|(table, name, columns)| index(table, name, columns));
    let indexes = std::iter::once(added_key()).chain(indexes);
    tables.chain(indexes).chain(about).collect()
}

fn make_tables(store: &mut dyn Store) -> Result<()> {
    let there = store.tables()?;
    if there.iter().any(|table| table == BINDINGS) && !there.iter().any(|table| table == ABOUT) {
        adopt::adopt(store)?;
    }
    for (name, table) in TABLES.iter().zip(store.dialect().tables) {
        // Whoever may not make tables may find them made.
        if !there.iter().any(|table| table == name) {
            store.define(table)?;
        }
    }
    for (table, column, kind) in ADDED {
        if !store.columns(table)?.iter().any(|there| there == column) {
            store.define(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    let (table, name, _) = ADDED_KEY;
    if !store.indexes(table)?.iter().any(|index| index == name) {
        store.define(&added_key())?;
    }
    for (table, name, columns) in INDEXES {
        if !store.indexes(table)?.iter().any(|index| index == name) {
            store.define(&index(table, name, columns))?;
        }
    }
    Ok(())
}

/// The constraints and indexes that are not there.
pub(crate) fn missing(store: &mut dyn Store) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (table, name) in KEYS.into_iter().chain(INDEXES.map(|(table, name, _)| (table, name))) {
        if !store.indexes(table)?.iter().any(|index| index == name) {
            missing.push(format!("index {name} on {table}"));
        }
    }
    Ok(missing)
}

/// Does what the protocol does to each table, and takes it back.
pub(crate) fn try_writing(store: &mut dyn Store) -> Result<()> {
    store.begin()?;
    let mut tried = Ok(());
    for statement in [
        format!("INSERT INTO {BINDINGS} (jobid, backup_target_id, host) VALUES (0, '', '')"),
        format!("UPDATE {BINDINGS} SET mounted = 0 WHERE jobid = 0 AND host = ''"),
        format!("UPDATE {JOURNAL} SET pending = NULL WHERE id = ''"),
        format!("DELETE FROM {JOURNAL} WHERE id = ''"),
        format!("UPDATE {TOTALS} SET operations = 0 WHERE host = ''"),
        format!("INSERT INTO {FENCES} (backup_target_id, host, seq) VALUES ('', '', 0)"),
    ] {
        tried = tried.and_then(|()| store.execute(&statement, &[]).map(|_| ()));
    }
    store.rollback();
    match tried {
        // A key of another table stands on the bindings: no job is number 0 there.
        Err(StoreError::Foreign(_)) => Ok(()),
        tried => tried,
    }
}

fn added_key() -> String {
    let (table, name, columns) = ADDED_KEY;
    format!("CREATE UNIQUE INDEX {name} ON {table} ({columns})")
}

fn index(table: &str, name: &str, columns: &str) -> String {
    format!("CREATE INDEX {name} ON {table} ({columns})")
}

/// A file of somebody else's is not made a ledger. A database on a server is shared.
fn check_empty(store: &mut dyn Store) -> Result<()> {
    let tables = store.tables()?;
    let is_known = tables.is_empty() || tables.iter().any(|table| table == BINDINGS);
    if store.dialect().is_embedded && !is_known {
        return Err(unusable("the database holds other tables, and no ledger".into()));
    }
    Ok(())
}

fn version(store: &mut dyn Store) -> Result<Option<String>> {
    if !store.tables()?.iter().any(|table| table == ABOUT) {
        return Ok(None);
    }
    about(store, "schema_version")
}

fn about(store: &mut dyn Store, name: &str) -> Result<Option<String>> {
    let rows = store.query("SELECT value FROM dms_ledger_about WHERE name = ?", params![name])?;
    Ok(rows.first().and_then(|row| row.text(0)))
}

fn newer(version: &str) -> StoreError {
    unusable(format!(
        "the ledger has schema version {version}; this program knows version {VERSION}"
    ))
}

fn unusable(text: String) -> StoreError {
    StoreError::Unusable(text)
}
