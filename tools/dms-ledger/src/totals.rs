//! What the journal says in numbers: how many operations came to what, and how long they took.
//!
//! Counters must not go down when old operations are removed, so what they add up to is kept.

use std::collections::BTreeMap;

use crate::store::{Result, Row, Store, StoreError, params};

/// What operations are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) host: String,
    pub(crate) action: String,
    /// Empty: it was refused before there was one.
    pub(crate) decision: String,
    pub(crate) status: String,
    /// Empty: none.
    pub(crate) error_code: String,
}

/// What operations of a kind add up to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) operations: i64,
    /// Milliseconds between plan and record.
    pub(crate) took: i64,
    /// Milliseconds that plan waited for other operations.
    pub(crate) waited: i64,
}

/// All operations there have been, by kind.
pub(crate) type Totals = BTreeMap<Kind, Total>;

impl Kind {
    /// From the columns host, action, decision, status and error_code, the first of them here.
    fn from_row(row: &Row, first: usize) -> Kind {
        let text = |column: usize| row.text(first + column).unwrap_or_default();
        Kind {
            host: text(0),
            action: text(1),
            decision: text(2),
            status: text(3),
            error_code: text(4),
        }
    }
}

impl Total {
    pub(crate) fn add(&mut self, other: Total) {
        self.operations += other.operations;
        self.took += other.took;
        self.waited += other.waited;
    }
}

/// Adds up the journal, and what is not in it any more.
pub(crate) fn read(store: &mut dyn Store) -> Result<Totals> {
    let mut totals = Totals::new();
    for sql in [
        "SELECT host, action, decision, status, error_code, COUNT(*),
                SUM(closed_ms - opened_ms), SUM(waited_ms)
         FROM backup_target_mount_operations GROUP BY host, action, decision, status, error_code",
        "SELECT host, action, decision, status, error_code, operations, took_ms, waited_ms
         FROM backup_target_mount_totals",
    ] {
        for row in store.query(sql, &[])? {
            let number = |column| row.int(column).unwrap_or_default();
            let total = Total { operations: number(5), took: number(6), waited: number(7) };
            totals.entry(Kind::from_row(&row, 0)).or_default().add(total);
        }
    }
    Ok(totals)
}

/// Keeps what operations add up to that are about to be removed: rows of id, host, action,
/// decision, status, error_code, and the milliseconds that it took and waited. Part of the caller's
/// transaction.
pub(crate) fn keep(store: &mut dyn Store, removed: &[Row]) -> Result<()> {
    let mut totals = Totals::new();
    for row in removed {
        let number = |column| row.int(column).unwrap_or_default();
        let total = Total { operations: 1, took: number(6), waited: number(7) };
        totals.entry(Kind::from_row(row, 1)).or_default().add(total);
    }
    // In the order of their key: two who do this at once wait for each other, and no more.
    for (kind, total) in &totals {
        add(store, kind, *total)?;
    }
    Ok(())
}

fn add(store: &mut dyn Store, kind: &Kind, total: Total) -> Result<()> {
    let Kind { host, action, decision, status, error_code } = kind;
    let params = params![
        total.operations,
        total.took,
        total.waited,
        host.as_str(),
        action.as_str(),
        decision.as_str(),
        status.as_str(),
        error_code.as_str()
    ];
    let changed = store.execute(
        "UPDATE backup_target_mount_totals
         SET operations = operations + ?, took_ms = took_ms + ?, waited_ms = waited_ms + ?
         WHERE host = ? AND action = ? AND decision = ? AND status = ? AND error_code = ?",
        params,
    )?;
    if changed == 0 {
        let added = store.execute(
            "INSERT INTO backup_target_mount_totals
             (operations, took_ms, waited_ms, host, action, decision, status, error_code)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params,
        );
        return match added {
            // Somebody else was first, just now: then there is something to add to.
            Err(StoreError::Duplicate) => add(store, kind, total),
            added => added.map(|_| ()),
        };
    }
    Ok(())
}
