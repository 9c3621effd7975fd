//! The one small trait that the ledger asks of an SQL engine.
//!
//! The protocol is written once, above it, in SQL that every engine understands. An engine says
//! what time it is, runs statements, and tells a duplicate key from a hiccup from a failure.

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

/// `params![a, b]`: the values for the question marks of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::Value::from($value)),*] };
}
pub(crate) use params;

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
    /// The connection is gone, and nobody knows whether the statement counts that was a transaction
    /// by itself.
    Lost(String),
    /// Anything else, in the engine's words.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Duplicate => f.write_str("a unique key is taken"),
            StoreError::Foreign(why)
            | StoreError::Busy(why)
            | StoreError::Unusable(why)
            | StoreError::Lost(why)
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
    /// Begins a transaction that will write, and says what time it is.
    fn begin(&mut self) -> Result<Now>;
    fn commit(&mut self) -> Result<()>;
    fn rollback(&mut self);
    /// Runs a statement; returns how many rows it changed.
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64>;
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>>;
    /// Runs a statement that is a transaction by itself; returns how many rows it changed.
    fn execute_alone(&mut self, sql: &str, params: &[Value]) -> Result<u64>;
    /// Counts the fence of the target on the host up, and says where it is; `None`: it has none.
    fn count_fence(&mut self, target: &str, host: &str) -> Result<Option<i64>>;
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
    mut work: impl FnMut(&mut dyn Store, &Now) -> Result<T>,
) -> Result<T> {
    insist(store.patience(), || attempt(store, &mut work))
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
    work: &mut impl FnMut(&mut dyn Store, &Now) -> Result<T>,
) -> Result<T> {
    let now = store.begin()?;
    match work(store, &now) {
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
