//! MySQL and MariaDB: the ledger that several hosts share.

mod cluster;
mod statement;

use std::collections::HashSet;
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{ClientIdentity, Conn, Opts, OptsBuilder, SslOpts};

use self::cluster::Transaction;
use self::statement::{Form, Script, read_all, read_row};
use crate::place::Server;
use crate::schema;
use crate::store::{
    Answer, Now, Result, Row, Statement, Store, StoreError, Value, trace_statement,
};

/// What each connection begins with, in one round trip. The transactions of the protocol need no more
/// than READ COMMITTED, which locks least; waits are short, since they are tried again above; times are
/// UTC; and each statement goes by one index, so that none need think of two.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
     SET SESSION innodb_lock_wait_timeout = 2, lock_wait_timeout = 2, time_zone = '+00:00',
     sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', optimizer_switch = 'index_merge=off'";

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
    transaction: Option<Transaction>,
    /// It begins with the next statement, in the same round trip.
    is_to_begin: bool,
    /// Whether the server is one of a Galera cluster, if it was asked yet.
    is_in_cluster: Option<bool>,
    patience: Duration,
    /// The statements that were sent already.
    sent: HashSet<String>,
}

impl Mysql {
    /// Connects. `patience`: how long the server may take over one statement, and how long to wait
    /// for others.
    pub(crate) fn open(server: &Server, patience: Duration) -> Result<Mysql> {
        let opts = options(server, patience);
        let sent = HashSet::new();
        let mut store = Mysql {
            opts,
            connection: None,
            transaction: None,
            is_to_begin: false,
            is_in_cluster: None,
            patience,
            sent,
        };
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

    /// How to send a statement. To have it prepared takes a round trip more, which is for those who
    /// send it again; the first time it goes with its values in it.
    fn form(&mut self, sql: &str, params: &[Value]) -> Form {
        if self.sent.contains(sql) {
            return Form::prepared(params);
        }
        self.sent.insert(sql.to_owned());
        Form::text(sql, params)
    }

    /// Does something on the connection. One that broke while it was not needed is made anew; in a
    /// transaction, what was done in it is lost with it.
    fn run<T>(&mut self, work: impl FnMut(&mut Conn) -> mysql::Result<T>) -> Result<T> {
        self.run_again(self.transaction.is_none(), work)
    }

    /// The same; `is_first`: nothing would be lost with the connection.
    fn run_again<T>(
        &mut self,
        is_first: bool,
        mut work: impl FnMut(&mut Conn) -> mysql::Result<T>,
    ) -> Result<T> {
        let mut may_try_again = is_first && self.connection.is_some();
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

impl Mysql {
    fn run_one(&mut self, sql: &str, params: &[Value]) -> Result<Answer> {
        if self.transaction.is_some() {
            let alone = [Statement::new(sql.to_owned(), params)];
            return Ok(self.run_all(&alone)?.pop().unwrap_or_default());
        }
        let sql = &*schema::MYSQL.spell(sql);
        trace_statement(sql);
        let form = self.form(sql, params);
        self.run(|connection| {
            let rows = form.send(connection, sql)?.into_iter().map(read_row).collect();
            Ok(Answer { rows, changed: connection.affected_rows(), id: None })
        })
    }
}

impl Store for Mysql {
    fn now(&mut self) -> Result<Now> {
        self.run(|connection| connection.query_first(NOW)).and_then(read_now)
    }

    fn text_of(&mut self, millis: i64) -> Result<String> {
        const TEXT: &str =
            "SELECT LEFT(DATE_FORMAT(FROM_UNIXTIME(? / 1000), '%Y-%m-%d %H:%i:%s.%f'), 23)";
        let text: Option<String> = self.run(|connection| connection.exec_first(TEXT, (millis,)))?;
        text.ok_or_else(|| StoreError::Failed("the server knows no such moment".into()))
    }

    fn begin(&mut self) -> Result<()> {
        self.transaction = Some(Transaction::at(self.is_in_cluster));
        self.is_to_begin = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        // Should the connection break here, nobody knows whether it was committed: an error, and
        // whoever asks again finds out.
        let is_begun = !std::mem::take(&mut self.is_to_begin);
        let committed = match self.transaction {
            Some(transaction) if is_begun => self.run(|connection| transaction.commit(connection)),
            _ => Ok(()),
        };
        self.transaction = None;
        if committed.is_err() {
            // What may be left of the transaction goes with the connection.
            self.connection = None;
        }
        committed
    }

    fn doubts_commits(&self) -> bool {
        self.is_in_cluster == Some(true)
    }

    fn rollback(&mut self) {
        // One that cannot be rolled back is one that was lost.
        if let Some(transaction) = self.transaction
            && !std::mem::take(&mut self.is_to_begin)
            && self.connection.is_some()
            && self.run(|connection| transaction.roll_back(connection)).is_err()
        {
            self.connection = None;
        }
        self.transaction = None;
    }

    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        Ok(self.run_one(sql, params)?.changed)
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        Ok(self.run_one(sql, params)?.rows)
    }

    fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        let is_first = self.is_to_begin || self.transaction.is_none();
        let is_to_begin = std::mem::take(&mut self.is_to_begin);
        let (before, after) = self.transaction.map_or((vec![], None), |it| it.around(is_to_begin));
        let asks = self.transaction.is_some() && self.is_in_cluster.is_none();
        let skipped = before.len();
        let mut script = Script::default();
        before.into_iter().for_each(|sql| script.add(sql, &[]));
        for Statement { sql, params } in statements {
            let sql = schema::MYSQL.spell(sql);
            trace_statement(&sql);
            script.add(&sql, params);
        }
        asks.then_some(cluster::QUESTION)
            .into_iter()
            .chain(after)
            .for_each(|sql| script.add(sql, &[]));
        let Script { text: script, count } = script;
        let mut answers = self.run_again(is_first, |connection| read_all(connection, &script))?;
        if answers.len() != count {
            return Err(StoreError::Failed("the server did not answer every statement".into()));
        }
        answers.drain(..skipped);
        let more = answers.split_off(statements.len());
        if asks {
            self.is_in_cluster = Some(more.first().is_some_and(cluster::is_one));
        }
        Ok(answers)
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
        .init(vec![SESSION]);
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
            // is not ready yet, the transaction did not pass the others, or is not there any more.
            1205 | 1213 | 1020 | 1047 | 1180 | 1305 => StoreError::Busy(text),
            1452 | 1216 => StoreError::Foreign(text),
            _ => StoreError::Failed(text),
        },
        _ => StoreError::Failed(text),
    }
}
