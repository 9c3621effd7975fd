//! The one small trait that the ledger asks of an SQL engine.
//!
//! The protocol is written once, above it, in SQL that every engine understands. An engine says
//! what time it is, runs statements, and tells a duplicate key from a hiccup from a failure.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use crate::schema::Dialect;

/// A value on its way into or out of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// `values![a, b]`: the values for the question marks of a statement, to be kept by it.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::Value::from($value)),*] };
}
pub(crate) use values;

/// `params![a, b]`: the same, to be looked at.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &$crate::store::values![$($value),*] };
}
pub(crate) use params;

/// A statement on its way to the engine, with a value for each question mark.
///
/// In the place of a value it may say `NOW_TEXT` or `NOW_MILLIS`, as all SQL here: what time it is by
/// the database's clock, as in [`Now`].
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) params: Vec<Value>,
}

impl Statement {
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>, params: impl Into<Vec<Value>>) -> Self {
        Statement { sql: sql.into(), params: params.into() }
    }
}

/// What came of a statement.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// How many rows it changed; if it asked for rows, these.
    pub(crate) changed: u64,
    pub(crate) rows: Vec<Row>,
    /// What it counted up, where the engine says that beside the rows.
    pub(crate) id: Option<i64>,
}

impl Answer {
    /// What a statement came to that counts something up.
    pub(crate) fn counted(&self) -> Option<i64> {
        self.id.or_else(|| self.rows.first()?.int(0))
    }
}

/// One row of an answer, by position.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    /// The text in this column; `None` for NULL.
    pub(crate) fn text(&self, column: usize) -> Option<String> {
        match self.0.get(column)? {
            Value::Null => None,
            Value::Int(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.clone()),
        }
    }

    /// The same, and it is not in the row any more.
    pub(crate) fn take(&mut self, column: usize) -> Option<String> {
        match std::mem::replace(self.0.get_mut(column)?, Value::Null) {
            Value::Null => None,
            Value::Int(number) => Some(number.to_string()),
            Value::Text(text) => Some(text),
        }
    }

    /// The number in this column; `None` for NULL and for what is no number.
    pub(crate) fn int(&self, column: usize) -> Option<i64> {
        match self.0.get(column)? {
            Value::Null => None,
            Value::Int(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
        }
    }
}

/// What went wrong in the database.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// A unique key is taken.
    Duplicate,
    /// A key of another table is not there: the engine's words.
    Foreign(String),
    /// Somebody else was in the way; the same transaction may succeed if it is run again.
    Busy(String),
    /// It is not a ledger that this program can use; no time will mend that.
    Unusable(String),
    /// What a transaction was about is not as it was when somebody looked: nothing was done.
    Overtaken,
    /// Anything else, in the engine's words.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Duplicate => f.write_str("a unique key is taken"),
            StoreError::Overtaken => f.write_str("somebody else has changed it meanwhile"),
            StoreError::Foreign(why)
            | StoreError::Busy(why)
            | StoreError::Unusable(why)
            | StoreError::Failed(why) => f.write_str(why),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// The database's clock: hosts may disagree about the time, the ledger does not.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    /// Milliseconds since 1970, for leases.
    pub(crate) millis: i64,
    /// `YYYY-MM-DD HH:MM:SS.mmm` in UTC, for the columns that people read.
    pub(crate) text: String,
}

/// An SQL engine.
pub(crate) trait Store {
    fn now(&mut self) -> Result<Now>;
    /// A moment, given as [`Now::millis`] is, in the words of [`Now::text`].
    fn text_of(&mut self, millis: i64) -> Result<String>;
    /// Begins a transaction that will write.
    fn begin(&mut self) -> Result<()>;
    fn commit(&mut self) -> Result<()>;
    /// Whether a COMMIT that has said yes need not have done anything: in a Galera cluster, of a transaction
    /// that has lost against another node's, once in some thousands (seen with MariaDB 10.11).
    fn doubts_commits(&self) -> bool;
    fn rollback(&mut self);
    /// Runs a statement; returns how many rows it changed.
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64>;
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>>;
    /// Runs statements one after the other, in one round trip where there are any, until one fails.
    fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>>;
    /// The names of the tables that there are.
    fn tables(&mut self) -> Result<Vec<String>>;
    /// The names of a table's columns.
    fn columns(&mut self, table: &str) -> Result<Vec<String>>;
    /// The names of a table's indexes.
    fn indexes(&mut self, table: &str) -> Result<Vec<String>>;
    /// Does this while nobody else does the like: changes the tables.
    fn alone(&mut self, work: &mut dyn FnMut(&mut dyn Store) -> Result<()>) -> Result<()>;
    /// Runs a statement that defines something.
    fn define(&mut self, statement: &str) -> Result<()>;
    /// The words of the tables.
    fn dialect(&self) -> &'static Dialect;
    /// How long a transaction is tried again while others are in the way.
    fn patience(&self) -> Duration;
}

/// Runs `work` in a transaction: all of it or nothing, tried again while others are in the way.
pub(crate) fn transaction<T>(
    store: &mut dyn Store,
    mut work: impl FnMut(&mut dyn Store) -> Result<T>,
) -> Result<T> {
    insist(store.patience(), || attempt(store, &mut work))
}

/// The same; where a COMMIT is not to be believed, `is_so` says afterwards whether it was done, and it is
/// done again if not.
pub(crate) fn transaction_seen<T>(
    store: &mut dyn Store,
    mut work: impl FnMut(&mut dyn Store) -> Result<T>,
    mut is_so: impl FnMut(&mut dyn Store, &T) -> Result<bool>,
) -> Result<T> {
    insist(store.patience(), || {
        let value = attempt(store, &mut work)?;
        if store.doubts_commits() && !is_so(store, &value)? {
            return Err(StoreError::Busy("what was committed is not there".into()));
        }
        Ok(value)
    })
}

/// Does it again while others are in the way.
pub(crate) fn insist<T>(patience: Duration, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        match work() {
            Err(StoreError::Busy(why)) if Instant::now() < end => {
                log::debug!("the ledger is busy ({why}): trying again");
                pause(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn attempt<T>(
    store: &mut dyn Store,
    work: &mut impl FnMut(&mut dyn Store) -> Result<T>,
) -> Result<T> {
    store.begin()?;
    match work(store) {
        Ok(value) => match store.commit() {
            Ok(()) => Ok(value),
            Err(why) => {
                store.rollback();
                Err(why)
            }
        },
        Err(why) => {
            store.rollback();
            Err(why)
        }
    }
}

/// Tells of a statement on its way to the engine: a line, without the values, which are nobody's
/// business.
pub(crate) fn trace_statement(sql: &str) {
    if log::log_enabled!(log::Level::Trace) {
        log::trace!("{}", sql.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

/// Sleeps between half of `time` and all of it, so that two who wait do not wait in step.
pub(crate) fn pause(time: Duration) {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) % 500;
    std::thread::sleep(time * (500 + u32::try_from(random).unwrap_or(0)) / 1000);
}
