//! What an operator takes away: `forget`, `release`, `cleanup`.

use std::time::Duration;

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
use crate::owner::{Owner, Sight, attempt};
use crate::pools;
use crate::store::{Result, Store, Value, params, transaction};
use crate::takeover;
use crate::totals;

/// How many rows are removed in one transaction: others want to write, too.
const BATCH: i64 = 1000;

/// What `forget` came to.
pub(crate) enum Forgotten {
    /// It is done.
    Done,
    /// This job uses the target.
    InUse(Binding),
    /// There is no such row.
    Nothing,
}

/// Marks the rows that match as deleted, unless one of them is in use.
pub(crate) fn forget(store: &mut dyn Store, filter: &bindings::Filter) -> Result<Forgotten> {
    transaction(store, |store| {
        let mut found = bindings::find(store, filter)?;
        found.retain(|binding| !binding.deleted);
        if let Some(used) = found.iter().find(|binding| binding.mounted) {
            return Ok(Forgotten::InUse(used.clone()));
        }
        let mut rows = 0;
        for binding in &found {
            rows += usize::from(bindings::forget(store, binding)?);
        }
        Ok(if rows == 0 { Forgotten::Nothing } else { Forgotten::Done })
    })
}

/// Lets jobs go that will not say so themselves. What is mounted stays so until somebody looks; so
/// a pool that their host may write to stays theirs.
pub(crate) fn release(store: &mut dyn Store, filter: &bindings::Filter) -> Result<Released> {
    transaction(store, |store| {
        let found = bindings::find(store, filter)?;
        let (kept, found): (Vec<_>, Vec<_>) = found.into_iter().partition(pools::may_write);
        for Binding { job, target, host, .. } in &found {
            bindings::release(store, *job, target, host)?;
        }
        Ok(Released { found, kept })
    })
}

/// What `release` came to.
pub(crate) struct Released {
    pub(crate) found: Vec<Binding>,
    /// These only an operator who knows that the host is dead can let go.
    pub(crate) kept: Vec<Binding>,
}

/// The operator says that the host is dead: nothing that it was about to do, or has done, counts.
pub(crate) fn bury(
    store: &mut dyn Store,
    filter: &bindings::Filter,
    host: &str,
) -> Result<Vec<Binding>> {
    transaction(store, |store| {
        let found = bindings::find(store, filter)?;
        journal::bury(store, host, filter.target.as_deref())?;
        for Binding { job, target, host, .. } in &found {
            bindings::release(store, *job, target, host)?;
        }
        Ok(found)
    })
}

/// What is stale: older than this, and not known to be alive.
#[derive(Debug)]
pub(crate) struct Stale {
    pub(crate) operations: Vec<Operation>,
    pub(crate) bindings: Vec<Binding>,
}

/// Looks for pending operations and for bindings that nobody has touched for so long.
pub(crate) fn find_stale(store: &mut dyn Store, me: &Owner, age: Duration) -> Result<Stale> {
    let before = moment(store, age)?;
    let pending = journal::Filter { pending_only: true, ..journal::Filter::default() };
    let mut operations = journal::find(store, &pending)?;
    operations.retain(|operation| {
        let is_old = operation.created.as_deref().is_some_and(|created| created < before.as_str());
        is_old && !is_alive(me, operation)
    });
    let old =
        bindings::Filter { active_only: true, before: Some(before), ..bindings::Filter::default() };
    let mut bindings = bindings::find(store, &old)?;
    let is_alive = |keeper: &_| me.look_for(keeper) == Sight::Alive;
    bindings.retain(|binding| !binding.owner.as_ref().is_some_and(is_alive));
    // However old: another host would be let in, beside one that may write.
    bindings.retain(|binding| !pools::may_write(binding));
    Ok(Stale { operations, bindings })
}

/// Takes over and releases what was found.
pub(crate) fn clean(store: &mut dyn Store, stale: &Stale) -> Result<()> {
    for operation in &stale.operations {
        takeover::take_over(store, operation)?;
    }
    transaction(store, |store| {
        for binding in &stale.bindings {
            bindings::release_as_seen(store, binding)?;
        }
        Ok(())
    })
}

/// Removes operations that ended longer ago than this; not the one that an active binding comes
/// from. Returns how many.
pub(crate) fn shorten_journal(store: &mut dyn Store, age: Duration) -> Result<u64> {
    let before = moment(store, age)?;
    let mut removed = 0;
    loop {
        let batch = transaction(store, |store| {
            // Nearly all operations have ended: an engine must not go by that, but by their age.
            let old = store.query(
                "SELECT o.id, o.host, o.action, o.decision, o.status, o.error_code,
                        o.closed_ms - o.opened_ms, o.waited_ms
                 FROM backup_target_mount_operations o
                 WHERE o.created_at < ? AND COALESCE(o.pending, 0) = 0 AND o.status <> 'unsettled'
                 AND NOT (o.action = 'mount' AND o.status = 'success' AND EXISTS
                     (SELECT 1 FROM backup_target_mount_ledger b
                      WHERE b.jobid = o.job_id AND b.backup_target_id = o.backup_target_id
                      AND b.host = o.host AND b.mounted = 1
                      AND COALESCE(b.deleted, 0) = 0))
                 ORDER BY o.created_at LIMIT ?",
                params![before.as_str(), BATCH],
            )?;
            totals::keep(store, &old)?;
            let ids: Vec<Value> = old.iter().map(|row| Value::from(row.text(0))).collect();
            if !ids.is_empty() {
                let marks = vec!["?"; ids.len()].join(", ");
                let delete = format!(
                    "DELETE FROM backup_target_mount_operations
                     WHERE id IN ({marks}) AND COALESCE(pending, 0) = 0"
                );
                store.execute(&delete, &ids)?;
            }
            Ok(ids.len() as u64)
        })?;
        removed += batch;
        if batch < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// So long before now, as the database writes it.
pub(crate) fn moment(store: &mut dyn Store, age: Duration) -> Result<String> {
    let millis = store.now()?.millis - i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 2);
    store.text_of(millis.max(0))
}

fn is_alive(me: &Owner, operation: &Operation) -> bool {
    let attempt = attempt(&operation.id, operation.seq);
    operation.owner.host == me.host && !me.knows_ended(&operation.owner, &attempt)
}
