//! MySQL and MariaDB: the ledger that several hosts share.

use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{ClientIdentity, Conn, Opts, OptsBuilder, Params, SslOpts};

use crate::place::Server;
use crate::schema;
use crate::store::{Now, Result, Row, Store, StoreError, Value, trace_statement};

/// What each connection begins with. The transactions of the protocol need no more than READ
/// COMMITTED, which locks least; waits are short, since they are tried again above; and times are
/// UTC. Each statement is a round trip, for every command.
const SESSION: [&str; 2] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 2, lock_wait_timeout = 2, time_zone = '+00:00',
     sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
];

/// No answer is larger than this, in bytes; as the server has it by default.
const MAX_PACKET: usize = 16 << 20;

/// What time it is on the server: for leases, and for the columns that people read.
const NOW: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), \
                   LEFT(DATE_FORMAT(NOW(3), '%Y-%m-%d %H:%i:%s.%f'), 23)";

/// How long two who make the tables at once wait for each other, in seconds.
const SCHEMA_LOCK: &str = "SELECT GET_LOCK(CONCAT('dms-ledger.', DATABASE()), 30)";
const SCHEMA_UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('dms-ledger.', DATABASE()))";

/// A ledger on a server.
pub(crate) struct Mysql {
    opts: Opts,
    /// `None` until it is needed, and after it broke.
    connection: Option<Conn>,
    in_transaction: bool,
    patience: Duration,
}

impl Mysql {
    /// Connects. `patience`: how long the server may take over one statement, and how long to wait
    /// for others.
    pub(crate) fn open(server: &Server, patience: Duration) -> Result<Mysql> {
        let opts = options(server, patience);
        let mut store = Mysql { opts, connection: None, in_transaction: false, patience };
        store.connect()?;
        Ok(store)
    }

    fn connect(&mut self) -> Result<&mut Conn> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Conn::new(self.opts.clone()).map_err(|why| error(&why))?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Does something on the connection. One that broke while it was not needed is made anew; in a
    /// transaction, what was done in it is lost with it.
    fn run<T>(&mut self, mut work: impl FnMut(&mut Conn) -> mysql::Result<T>) -> Result<T> {
        let mut may_try_again = !self.in_transaction && self.connection.is_some();
        loop {
            match work(self.connect()?) {
                Ok(value) => return Ok(value),
                Err(why) if is_lost(&why) => {
                    self.connection = None;
                    if !std::mem::take(&mut may_try_again) {
                        return Err(error(&why));
                    }
                }
                Err(why) => return Err(error(&why)),
            }
        }
    }
}

impl Store for Mysql {
    fn now(&mut self) -> Result<Now> {
        self.run(|connection| connection.exec_first(NOW, ())).and_then(read_now)
    }

    fn text_of(&mut self, millis: i64) -> Result<String> {
        const TEXT: &str =
            "SELECT LEFT(DATE_FORMAT(FROM_UNIXTIME(? / 1000), '%Y-%m-%d %H:%i:%s.%f'), 23)";
        let text: Option<String> = self.run(|connection| connection.exec_first(TEXT, (millis,)))?;
        text.ok_or_else(|| StoreError::Failed("the server knows no such moment".into()))
    }

    fn begin(&mut self) -> Result<Now> {
        // One round trip for both.
        let begin = format!("START TRANSACTION; {NOW}");
        let begun = self.run(|connection| {
            let mut sets = connection.query_iter(&begin)?;
            let mut last = None;
            while let Some(set) = sets.iter() {
                for row in set {
                    last = Some(row?);
                }
            }
            Ok(last)
        });
        let now = begun.and_then(|row| read_now(row.map(mysql::from_row)));
        match now {
            Ok(_) => self.in_transaction = true,
            // It may have begun all the same.
            Err(_) => self.connection = None,
        }
        now
    }

    fn commit(&mut self) -> Result<()> {
        // Should the connection break here, nobody knows whether it was committed: an error, and
        // whoever asks again finds out.
        let committed = self.run(|connection| connection.query_drop("COMMIT"));
        self.in_transaction = false;
        if committed.is_err() {
            // What may be left of the transaction goes with the connection.
            self.connection = None;
        }
        committed
    }

    fn rollback(&mut self) {
        // One that cannot be rolled back is one that was lost.
        if self.in_transaction
            && self.connection.is_some()
            && self.run(|connection| connection.query_drop("ROLLBACK")).is_err()
        {
            self.connection = None;
        }
        self.in_transaction = false;
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        trace_statement(sql);
        self.run(|connection| {
            connection.exec_drop(sql, positional(params))?;
            Ok(connection.affected_rows())
        })
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        trace_statement(sql);
        let rows: Vec<mysql::Row> =
            self.run(|connection| connection.exec(sql, positional(params)))?;
        Ok(rows.into_iter().map(|row| Row(row.unwrap().into_iter().map(value).collect())).collect())
    }

    fn execute_alone(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        trace_statement(sql);
        let done = self.connect()?.exec_drop(sql, positional(params));
        match done {
            Ok(()) => Ok(self.connect()?.affected_rows()),
            Err(why) if is_lost(&why) => {
                self.connection = None;
                Err(StoreError::Lost(error(&why).to_string()))
            }
            Err(why) => Err(error(&why)),
        }
    }

    fn count_fence(&mut self, target: &str, host: &str) -> Result<Option<i64>> {
        const COUNT: &str = "UPDATE backup_target_mount_fences SET seq = LAST_INSERT_ID(seq + 1) \
                             WHERE backup_target_id = ? AND host = ?";
        trace_statement(COUNT);
        self.run(|connection| {
            connection.exec_drop(COUNT, (target, host))?;
            let seq = i64::try_from(connection.last_insert_id()).unwrap_or(i64::MAX);
            Ok((connection.affected_rows() > 0).then_some(seq))
        })
    }

    fn tables(&mut self) -> Result<Vec<String>> {
        const TABLES: &str =
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
        self.run(|connection| connection.exec(TABLES, ()))
    }

    fn columns(&mut self, table: &str) -> Result<Vec<String>> {
        const COLUMNS: &str = "SELECT column_name FROM information_schema.columns \
                               WHERE table_schema = DATABASE() AND table_name = ?";
        self.run(|connection| connection.exec(COLUMNS, (table,)))
    }

    fn indexes(&mut self, table: &str) -> Result<Vec<String>> {
        const INDEXES: &str = "SELECT DISTINCT index_name FROM information_schema.statistics \
                               WHERE table_schema = DATABASE() AND table_name = ?";
        self.run(|connection| connection.exec(INDEXES, (table,)))
    }

    fn alone(&mut self, work: &mut dyn FnMut(&mut dyn Store) -> Result<()>) -> Result<()> {
        let locked: Option<Option<i64>> =
            self.run(|connection| connection.query_first(SCHEMA_LOCK))?;
        if locked.flatten() != Some(1) {
            return Err(StoreError::Failed("another init does not end".into()));
        }
        let done = work(self);
        // It is released with the connection, too.
        let _: Result<Option<Option<i64>>> = self.run(|c| c.query_first(SCHEMA_UNLOCK));
        done
    }

    fn define(&mut self, statement: &str) -> Result<()> {
        self.run(|connection| connection.query_drop(statement))
    }

    fn dialect(&self) -> &'static schema::Dialect {
        &schema::MYSQL
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

fn options(server: &Server, patience: Duration) -> Opts {
    let mut options = OptsBuilder::new()
        .ip_or_hostname(Some(&server.host))
        .tcp_port(server.port)
        .socket(server.socket.as_ref().map(|path| path.to_string_lossy().into_owned()))
        // Else it looks for a socket behind our back, with a second connection.
        .prefer_socket(server.socket.is_some())
        .user(server.user.clone())
        .pass(server.password.as_ref().map(|password| password.reveal().to_owned()))
        .db_name(Some(&server.database))
        .tcp_connect_timeout(Some(server.connect_timeout))
        .read_timeout(Some(patience.max(Duration::from_secs(5))))
        .write_timeout(Some(patience.max(Duration::from_secs(5))))
        // An UPDATE tells how many rows it found, also where they were as they should be.
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
        // Else it asks the server, at the cost of a round trip. No statement of ours comes near it.
        .max_allowed_packet(Some(MAX_PACKET))
        .init(SESSION.to_vec());
    if let Some(tls) = &server.tls {
        let identity = tls.identity.clone().map(ClientIdentity::new);
        options = options.ssl_opts(Some(
            SslOpts::default()
                .with_root_cert_path(tls.ca.clone())
                .with_client_identity(identity)
                .with_danger_skip_domain_validation(tls.any_name),
        ));
    }
    options.into()
}

fn read_now(row: Option<(i64, String)>) -> Result<Now> {
    let (millis, text) =
        row.ok_or_else(|| StoreError::Failed("the server does not tell the time".into()))?;
    Ok(Now { millis, text })
}

fn positional(params: &[Value]) -> Params {
    if params.is_empty() {
        return Params::Empty;
    }
    Params::Positional(
        params
            .iter()
            .map(|value| match value {
                Value::Null => mysql::Value::NULL,
                Value::Int(number) => mysql::Value::Int(*number),
                Value::Text(text) => mysql::Value::Bytes(text.as_bytes().to_vec()),
            })
            .collect(),
    )
}

fn value(value: mysql::Value) -> Value {
    match value {
        mysql::Value::Int(number) => Value::Int(number),
        mysql::Value::UInt(number) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        mysql::Value::Bytes(bytes) => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
        mysql::Value::Date(year, month, day, hour, minute, second, micros) => Value::Text(format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
            micros / 1000
        )),
        // No column of ours holds any of these.
        mysql::Value::NULL
        | mysql::Value::Float(_)
        | mysql::Value::Double(_)
        | mysql::Value::Time(..) => Value::Null,
    }
}

/// Whether the connection is gone, or about to go, or not to be trusted.
fn is_lost(why: &mysql::Error) -> bool {
    /// Shutdown, and connections that the server has ended.
    const LOST: [u16; 5] = [1053, 1152, 1927, 3169, 4031];
    match why {
        mysql::Error::MySqlError(why) => LOST.contains(&why.code),
        // After any other error, a late answer could be taken for that of the next statement.
        _ => true,
    }
}

fn error(why: &mysql::Error) -> StoreError {
    let text = match why {
        mysql::Error::MySqlError(why) => why.message.clone(),
        mysql::Error::IoError(why) => why.to_string(),
        mysql::Error::DriverError(mysql::DriverError::CouldNotConnect(Some((address, why, _)))) => {
            format!("unable to connect to {address}: {why}")
        }
        other => other.to_string(),
    };
    match why {
        mysql::Error::MySqlError(why) => match why.code {
            1062 => StoreError::Duplicate,
            // Lock wait time-out, deadlock, a row that changed under a statement; Galera: the node
            // is not ready yet, the transaction did not pass the others.
            1205 | 1213 | 1020 | 1047 | 1180 => StoreError::Busy(text),
            1452 | 1216 => StoreError::Foreign(text),
            _ => StoreError::Failed(text),
        },
        _ => StoreError::Failed(text),
    }
}
