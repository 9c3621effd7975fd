//! What people and scripts ask the ledger: `status`, `list`, `history`.

use dms_cli::{Column, Table};
use serde_json::{Value, json};

use crate::bindings::{self, Binding};
use crate::journal;
use crate::store::{Result, Store};
use crate::tidy::Stale;

const STATUS: [Column; 8] = [
    Column::plain("target"),
    Column::plain("job"),
    Column::plain("host"),
    Column::state("mounted"),
    Column::wide("deleted"),
    Column::age("created"),
    Column::age("updated"),
    Column::rest("path"),
];

const STALE: [Column; 7] = [
    Column::plain("what"),
    Column::plain("target"),
    Column::plain("job"),
    Column::plain("host"),
    Column::age("created"),
    Column::age("updated"),
    Column::rest("operation"),
];

const BINDINGS: [Column; 9] = [
    Column::plain("target"),
    Column::plain("type"),
    Column::plain("job"),
    Column::plain("host"),
    Column::wide("mounted"),
    Column::wide("access"),
    Column::age("created"),
    Column::wide("updated"),
    Column::rest("path"),
];

const HISTORY: [Column; 10] = [
    Column::age("created"),
    Column::plain("target"),
    Column::plain("job"),
    Column::plain("host"),
    Column::plain("action"),
    Column::state("status"),
    Column::wide("completed"),
    Column::wide("operation"),
    Column::wide("lock_wait_ms"),
    Column::rest("message"),
];

/// The job's binding to the target, on one host or on all; mounted or not.
pub(crate) fn status(store: &mut dyn Store, filter: &bindings::Filter) -> Result<Option<Table>> {
    let found = bindings::find(store, filter)?;
    let mut table = Table::new(&STATUS);
    for binding in &found {
        let Binding { target, job, host, mounted, deleted, path, .. } = binding;
        table.add(vec![
            json!(target),
            json!(job),
            json!(host),
            json!(mounted),
            json!(deleted),
            time(&binding.created),
            time(&binding.updated),
            json!(path),
        ]);
    }
    Ok((!found.is_empty()).then_some(table))
}

/// The active bindings.
pub(crate) fn list(store: &mut dyn Store, filter: &bindings::Filter) -> Result<Table> {
    Ok(bindings_table(bindings::find(store, filter)?))
}

/// What `cleanup` finds, or has done.
pub(crate) fn stale(stale: &Stale) -> Table {
    let mut table = Table::new(&STALE);
    for operation in &stale.operations {
        table.add(vec![
            json!(format!("pending {}", operation.action)),
            json!(operation.target),
            json!(operation.has_job().then_some(operation.job)),
            json!(operation.host),
            time(&operation.created),
            Value::Null,
            json!(operation.id),
        ]);
    }
    for binding in &stale.bindings {
        table.add(vec![
            json!("binding"),
            json!(binding.target),
            json!(binding.job),
            json!(binding.host),
            time(&binding.created),
            time(&binding.updated),
            Value::Null,
        ]);
    }
    table
}

pub(crate) fn bindings_table(found: Vec<Binding>) -> Table {
    let mut table = Table::new(&BINDINGS);
    for binding in found {
        table.add(vec![
            json!(binding.target),
            json!(binding.kind),
            json!(binding.job),
            json!(binding.host),
            json!(binding.mounted),
            json!(binding.access),
            time(&binding.created),
            time(&binding.updated),
            json!(binding.path),
        ]);
    }
    table
}

/// The operations, newest first.
pub(crate) fn history(store: &mut dyn Store, filter: &journal::Filter) -> Result<Table> {
    let mut table = Table::new(&HISTORY);
    for operation in journal::find(store, filter)? {
        table.add(vec![
            time(&operation.created),
            json!(operation.target),
            json!(operation.has_job().then_some(operation.job)),
            json!(operation.host),
            json!(operation.action),
            json!(operation.status),
            time(&operation.completed),
            json!(operation.id),
            json!(operation.waited),
            json!(operation.error.or(operation.success)),
        ]);
    }
    Ok(table)
}

/// The database's `YYYY-MM-DD HH:MM:SS.mmm`, which is UTC, as RFC 3339 to the second.
fn time(text: &Option<String>) -> Value {
    let parts = text.as_deref().and_then(|text| Some((text.get(..10)?, text.get(11..19)?)));
    match parts {
        Some((date, time)) => json!(format!("{date}T{time}Z")),
        None => json!(text),
    }
}
