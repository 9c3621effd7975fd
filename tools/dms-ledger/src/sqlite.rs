//! SQLite: the embedded ledger.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use dms_flock::{Access, LockFile, Mode};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

use crate::schema;
use crate::store::{
    Answer, Now, Result, Row, Statement, Store, StoreError, Value, insist, pause, trace_statement,
};

/// A ledger in a file.
pub(crate) struct Sqlite {
    connection: Connection,
    patience: Duration,
    /// One transaction goes around all: those within are part of it.
    is_alone: bool,
    /// Where those who write wait for each other, if there is room for it.
    turn: Option<LockFile>,
}

/// How long to stand in the queue of those who write. Who has its head may be stopped there, and others may
/// write without it: then it is SQLite's own lock that is waited for.
const QUEUE: Duration = Duration::from_millis(300);

impl Sqlite {
    /// Opens the file, and makes it (0600, and its directory) if it is not there.
    /// `patience`: how long to wait for others that write.
    pub(crate) fn open(path: &Path, patience: Duration) -> Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
            made.map_err(|why| StoreError::Failed(format!("{}: {why}", dir.display())))?;
        }
        // SQLite gives its other files the mode of this one.
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        made.map_err(|why| StoreError::Failed(why.to_string()))?;
        let mut connection = Connection::open(path).map_err(error)?;
        connection.busy_handler(Some(wait_for_others)).map_err(error)?;
        // WAL: readers and a writer beside each other. Two who make a new file at once are told
        // "locked" here without the time-out of above.
        insist(patience, || connection.pragma_update(None, "journal_mode", "WAL").map_err(error))?;
        // FULL: what was committed survives a power cut, which is what a ledger is for.
        connection.pragma_update(None, "synchronous", "FULL").map_err(error)?;
        // The last one to close would write the whole log back: not on every command's way out.
        let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(no_checkpoint, true).map_err(error)?;
        let mut queue = path.as_os_str().to_owned();
        queue.push("-queue");
        let turn = LockFile::open(queue.as_ref(), Access::Owner);
        if let Err(why) = &turn {
            log::debug!("{}: no queue of those who write: {why}", path.display());
        }
        Ok(Sqlite { connection, patience, is_alone: false, turn: turn.ok() })
    }

    /// Waits for those who came before, within a bound. SQLite knows no queue: who waits tries again and
    /// again, and takes the processor from who writes.
    fn wait_for_turn(&self) {
        if let Some(turn) = &self.turn {
            // Without it, it is the same, but for what it takes.
            let _ = turn.lock(Mode::Exclusive, Some(Instant::now() + QUEUE));
        }
    }

    fn end_turn(&self) {
        if let Some(turn) = &self.turn {
            let _ = turn.unlock();
        }
    }

    fn run_cached(&mut self, sql: &str) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(error)?;
        statement.execute([]).map(|_| ()).map_err(error)
    }

    fn run(&self, sql: &str, params: &[Value]) -> Result<Answer> {
        let sql = schema::SQLITE.spell(sql);
        trace_statement(&sql);
        let mut statement = self.connection.prepare_cached(&sql).map_err(error)?;
        let columns = statement.column_count();
        if columns == 0 {
            let changed = statement.execute(params_from_iter(params)).map_err(error)?;
            return Ok(Answer { changed: changed as u64, ..Answer::default() });
        }
        let mut found = statement.query(params_from_iter(params)).map_err(error)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(error)? {
            let values = (0..columns).map(|column| Ok(value(row.get_ref(column)?)));
            rows.push(Row(values.collect::<rusqlite::Result<_>>().map_err(error)?));
        }
        Ok(Answer { rows, ..Answer::default() })
    }

    fn names(&mut self, sql: &str, params: &[Value]) -> Result<Vec<String>> {
        Ok(self.query(sql, params)?.iter().filter_map(|row| row.text(0)).collect())
    }
}

/// Waits while somebody else writes, a second in all; then the transaction is begun anew. SQLite's own
/// way is to sleep for longer each time, soon for 100 ms: of thirty who write for a millisecond each, the
/// last would wait for a second. Nor all the time: each try takes some of the processor from who writes.
fn wait_for_others(tries: i32) -> bool {
    pause(Duration::from_millis(match tries {
        0..3 => 1,
        3..8 => 2,
        _ => 4,
    }));
    tries < 330
}

impl Store for Sqlite {
    fn now(&mut self) -> Result<Now> {
        const NOW: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER), strftime('%Y-%m-%d %H:%M:%f', 'now')";
        let mut statement = self.connection.prepare_cached(NOW).map_err(error)?;
        statement
            .query_row([], |row| Ok(Now { millis: row.get(0)?, text: row.get(1)? }))
            .map_err(error)
    }

    fn text_of(&mut self, millis: i64) -> Result<String> {
        const TEXT: &str = "SELECT strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, 'unixepoch')";
        self.connection.query_row(TEXT, [millis], |row| row.get(0)).map_err(error)
    }

    fn begin(&mut self) -> Result<()> {
        if self.is_alone {
            return Ok(());
        }
        // Immediate: a transaction that reads first could not be upgraded beside another.
        self.wait_for_turn();
        self.run_cached("BEGIN IMMEDIATE").inspect_err(|_| self.end_turn())
    }

    fn commit(&mut self) -> Result<()> {
        if self.is_alone {
            return Ok(());
        }
        self.run_cached("COMMIT")?;
        self.end_turn();
        Ok(())
    }

    fn doubts_commits(&self) -> bool {
        false
    }

    fn rollback(&mut self) {
        if self.is_alone {
            return;
        }
        // There is none if BEGIN itself failed, or if the engine has rolled back already.
        let _ = self.connection.execute_batch("ROLLBACK");
        self.end_turn();
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        Ok(self.run(sql, params)?.changed)
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        Ok(self.run(sql, params)?.rows)
    }

    fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        statements.iter().map(|Statement { sql, params }| self.run(sql, params)).collect()
    }

    fn tables(&mut self) -> Result<Vec<String>> {
        self.names(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            &[],
        )
    }

    fn columns(&mut self, table: &str) -> Result<Vec<String>> {
        self.names("SELECT name FROM pragma_table_info(?)", &[table.into()])
    }

    fn indexes(&mut self, table: &str) -> Result<Vec<String>> {
        let mut names = self.names("SELECT name FROM pragma_index_list(?)", &[table.into()])?;
        // A constraint's index has a name of the engine's: its own stands in the table's words.
        let sql = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?";
        for sql in self.names(sql, &[table.into()])? {
            let named = sql.split("CONSTRAINT ").skip(1);
            names.extend(named.filter_map(|rest| Some(rest.split(' ').next()?.to_owned())));
        }
        Ok(names)
    }

    fn alone(&mut self, work: &mut dyn FnMut(&mut dyn Store) -> Result<()>) -> Result<()> {
        insist(self.patience, || {
            self.begin()?;
            self.is_alone = true;
            let done = work(self);
            self.is_alone = false;
            match done.and_then(|()| self.commit()) {
                Ok(()) => Ok(()),
                Err(why) => {
                    self.rollback();
                    Err(why)
                }
            }
        })
    }

    fn define(&mut self, statement: &str) -> Result<()> {
        self.connection.execute_batch(statement).map_err(error)
    }

    fn dialect(&self) -> &'static schema::Dialect {
        &schema::SQLITE
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => rusqlite::types::Null.into(),
            Value::Int(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
        })
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        // No column of ours holds any of these.
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
    }
}

#[allow(clippy::needless_pass_by_value)] // The shape that map_err wants.
fn error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error() {
        Some(inner) => match (inner.code, inner.extended_code) {
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => StoreError::Busy(text),
            (
                ErrorCode::ConstraintViolation,
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            ) => StoreError::Duplicate,
            (ErrorCode::ConstraintViolation, rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => {
                StoreError::Foreign(text)
            }
            _ => StoreError::Failed(text),
        },
        None => StoreError::Failed(text),
    }
}
