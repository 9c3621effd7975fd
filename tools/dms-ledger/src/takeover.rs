//! Settling the operations of runs that ended: every command but `commit` does this before its own
//! work.

use crate::bindings;
use crate::journal::{self, Filter, Operation};
use crate::owner::{Owner, attempt};
use crate::store::{Result, Store, transaction};

/// Takes over every pending operation whose owner has ended. An unmount that was taken over
/// releases the job's binding (it asked to leave); a mount is dropped (it was never told yes).
///
/// A wrong guess is never dangerous, only late: the fence stops an owner that is alive after all.
pub(crate) fn settle_ended(store: &mut dyn Store, me: &Owner) -> Result<()> {
    let pending = Filter { pending_only: true, ..Filter::default() };
    let operations = journal::find(store, &pending)?;
    if operations.is_empty() {
        return Ok(());
    }
    let millis = store.now()?.millis;
    for operation in operations {
        let attempt = attempt(&operation.id, operation.seq);
        // A host that may write to a pool is not taken for dead by a clock.
        let has_run_out = operation.lease_until < millis && !operation.may_write_to_pool();
        if me.knows_ended(&operation.owner, &attempt) || has_run_out {
            take_over(store, &operation)?;
        }
    }
    Ok(())
}

pub(crate) fn take_over(store: &mut dyn Store, operation: &Operation) -> Result<()> {
    let taken = transaction(store, |store| {
        if !journal::take_over(store, operation)? {
            return Ok(false);
        }
        if operation.action == "unmount" {
            let Operation { job, target, host, .. } = operation;
            bindings::release(store, *job, target, host)?;
        }
        Ok(true)
    })?;
    if taken {
        log::warn!(
            "took over operation {} ({} of {} by job {} on {}): its pipeline ended",
            operation.id,
            operation.action,
            operation.target,
            operation.job,
            operation.host
        );
    }
    Ok(())
}
