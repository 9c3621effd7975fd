//! What a Galera cluster needs beyond what a single server does.
//!
//! Galera drops a transaction that loses against another node's, and does not always say so between the
//! statements of one packet: those that follow would each be committed by itself. So nothing is committed
//! by itself in a transaction there, and each packet ends with the question whether it is still the one
//! that it began in.

use mysql::Conn;

use super::statement::read_all;
use crate::store::Answer;

/// Whether the server is in a cluster: ON or OFF, or no row.
pub(super) const QUESTION: &str = "SHOW VARIABLES LIKE 'wsrep_on'";

/// The answer to that.
pub(super) fn is_one(answer: &Answer) -> bool {
    answer.rows.first().and_then(|row| row.text(1)).as_deref() == Some("ON")
}

/// A savepoint goes with its transaction.
const GUARD: &str = "SAVEPOINT dms_is_there";
const GUARDED: &str = "RELEASE SAVEPOINT dms_is_there";

/// How a transaction is begun, continued and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    Plain,
    /// The server is in a cluster, or may be.
    Guarded,
}

impl Transaction {
    /// As it has to be where the server is in a cluster or is not, or where nobody knows.
    pub(super) fn at(is_in_cluster: Option<bool>) -> Transaction {
        match is_in_cluster {
            Some(false) => Transaction::Plain,
            _ => Transaction::Guarded,
        }
    }

    /// What goes before the statements of a packet, and what after them.
    pub(super) fn around(self, is_to_begin: bool) -> (Vec<&'static str>, Option<&'static str>) {
        match self {
            Transaction::Plain => {
                (is_to_begin.then_some("START TRANSACTION").into_iter().collect(), None)
            }
            Transaction::Guarded => {
                let begin = is_to_begin.then_some("SET autocommit = 0");
                (begin.into_iter().chain([GUARD]).collect(), Some(GUARDED))
            }
        }
    }

    pub(super) fn commit(self, connection: &mut Conn) -> mysql::Result<()> {
        self.end(connection, "COMMIT")
    }

    pub(super) fn roll_back(self, connection: &mut Conn) -> mysql::Result<()> {
        self.end(connection, "ROLLBACK")
    }

    fn end(self, connection: &mut Conn, how: &str) -> mysql::Result<()> {
        // That would commit by itself what is there; after the first has failed it is not done.
        let more = if self == Transaction::Guarded { "; SET autocommit = 1" } else { "" };
        read_all(connection, &format!("{how}{more}")).map(|_| ())
    }
}
