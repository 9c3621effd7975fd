//! A table that the Python client has made becomes ours, row by row as it is, and stays the client's.

use crate::schema::{BINDINGS, unusable};
use crate::store::{Result, Store, StoreError};

/// What the client's table may lack: columns of the documents that it was made without, and ours.
const COLUMNS: [(&str, &str); 7] = [
    ("version", "VARCHAR(32) NULL"),
    ("mount_path", "VARCHAR(512) NULL"),
    ("type", "VARCHAR(16) NULL"),
    ("source", "VARCHAR(2048) NULL"),
    ("access", "VARCHAR(16) NULL"),
    ("owner", "VARCHAR(512) NULL"),
    ("deleted_at", "DATETIME NULL"),
];

/// What no table of the client's is without.
const NEEDED: [&str; 7] =
    ["backup_target_id", "jobid", "host", "mounted", "deleted", "created_at", "updated_at"];

/// Adds what is missing.
pub(crate) fn adopt(store: &mut dyn Store) -> Result<()> {
    let columns = store.columns(BINDINGS)?;
    let has = |name: &str| columns.iter().any(|column| column == name);
    if has("action") && has("status") {
        return Err(unusable(format!(
            "{BINDINGS} is the journal of an older DMS (it has the columns action and status): \
             rename it, and run init again"
        )));
    }
    if let Some(missing) = NEEDED.iter().find(|name| !has(name)) {
        return Err(unusable(format!("{BINDINGS} has no column {missing}: it is no ledger")));
    }
    if !has("id") {
        match store.dialect().id {
            Some(kind) => add(store, "id", kind)?,
            None => return rebuild(store, &columns),
        }
    }
    for (name, kind) in COLUMNS {
        if !has(name) {
            add(store, name, kind)?;
        }
    }
    for statement in store.dialect().bytewise {
        // A key of another table may stand on the column: then its ids are told apart as theirs.
        if let Err(why) = store.define(statement) {
            log::warn!("ids of {BINDINGS} compare as the server has it: {why}");
        }
    }
    make_unique(store)
}

fn add(store: &mut dyn Store, column: &str, kind: &str) -> Result<()> {
    store.define(&format!("ALTER TABLE {BINDINGS} ADD COLUMN {column} {kind}"))
}

/// One row for a job, a target and a host. Where there are two, somebody has to say which counts.
fn make_unique(store: &mut dyn Store) -> Result<()> {
    let twice = store.query(
        "SELECT jobid, backup_target_id, host FROM backup_target_mount_ledger
         GROUP BY jobid, backup_target_id, host HAVING COUNT(*) > 1 LIMIT 1",
        &[],
    )?;
    if let Some(row) = twice.first() {
        let text = |column| row.text(column).unwrap_or_default();
        return Err(unusable(format!(
            "{BINDINGS} has several rows for job {}, target {} and host {}: remove all but one, \
             and run init again",
            text(0),
            text(1),
            text(2)
        )));
    }
    if store.indexes(BINDINGS)?.iter().any(|index| index == "uq_job_target_host") {
        return Ok(());
    }
    let unique = "CREATE UNIQUE INDEX uq_job_target_host
                  ON backup_target_mount_ledger (jobid, backup_target_id, host)";
    match store.define(unique) {
        Err(StoreError::Failed(why)) => Err(StoreError::Failed(format!("{BINDINGS}: {why}"))),
        made => made,
    }
}

/// An engine that cannot add an id gets a new table, with all rows of the old one.
fn rebuild(store: &mut dyn Store, columns: &[String]) -> Result<()> {
    let kept: Vec<&str> = NEEDED
        .into_iter()
        .chain(COLUMNS.iter().map(|(name, _)| *name))
        .filter(|name| columns.iter().any(|column| column == name))
        .collect();
    // Theirs may be NULL where ours may not.
    let filled = kept.iter().map(|name| match *name {
        "mounted" | "deleted" => format!("COALESCE({name}, 0)"),
        name => name.to_owned(),
    });
    let (filled, kept) = (filled.collect::<Vec<_>>().join(", "), kept.join(", "));
    store.define(&format!("ALTER TABLE {BINDINGS} RENAME TO {BINDINGS}_before"))?;
    for table in store.dialect().tables.iter().filter(|table| table.contains(BINDINGS)) {
        store.define(table)?;
    }
    store.define(&format!(
        "INSERT INTO {BINDINGS} ({kept}) SELECT {filled} FROM {BINDINGS}_before"
    ))?;
    store.define(&format!("DROP TABLE {BINDINGS}_before"))
}
