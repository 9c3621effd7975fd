//! The journal: one row per operation, and at most one pending for a target on a host.

mod read;

pub(crate) use read::{Filter, Operation, find, last_fence_done, last_mount};

use dms_wire::{Access, Action, Decision, Plan, Request, Response, TargetType};

use crate::owner::Owner;
use crate::schema::Dialect;
use crate::store::{Now, Result, Store, StoreError, insist, params, transaction};

/// What a new operation is going to be.
pub(crate) struct Opening<'a> {
    pub(crate) id: &'a str,
    pub(crate) target: &'a str,
    pub(crate) job: i32,
    pub(crate) host: &'a str,
    pub(crate) action: Action,
    /// A mount's path; two pending mounts cannot have the same one.
    pub(crate) path: Option<&'a str>,
    pub(crate) kind: Option<TargetType>,
    pub(crate) source: Option<&'a str>,
    /// ZFS: how the pool is to be imported.
    pub(crate) access: Option<Access>,
    pub(crate) request: &'a Request,
    pub(crate) owner: &'a Owner,
    /// Milliseconds from now after which nobody waits for this operation any more.
    pub(crate) lease: i64,
    /// Milliseconds that it has waited for others.
    pub(crate) waited: i64,
}

impl Opening<'_> {
    /// A pool that is to be imported read-write: no two hosts may do that at once.
    fn pool(&self) -> Option<&str> {
        // No pool has a longer name: the node refuses it.
        let pool = self.source.filter(|pool| pool.len() <= 255);
        pool.filter(|_| self.access == Some(Access::ReadWrite))
    }
}

/// Opens an operation, in a transaction of its own: from now on it is the only one pending for
/// its target on its host. [`StoreError::Duplicate`] if another is, or has its id or path.
pub(crate) fn open(store: &mut dyn Store, new: &Opening<'_>) -> Result<()> {
    match insert(store, new) {
        // Whether it is there can be seen, unlike what a COMMIT has done.
        Err(StoreError::Lost(_)) if !is_there(store, new)? => insert(store, new),
        Err(StoreError::Lost(_)) => Ok(()),
        inserted => inserted,
    }
}

fn insert(store: &mut dyn Store, new: &Opening<'_>) -> Result<()> {
    let request = new.request.journal_data().to_string();
    let Dialect { now_text, now_millis, .. } = store.dialect();
    // One statement, which needs no transaction around it: the time is the engine's word.
    let sql = format!(
        "INSERT INTO backup_target_mount_operations
         (id, backup_target_id, job_id, host, action, status, mount_path, type, source,
          request_data, created_at, updated_at, pending, pending_path, pending_pool, access,
          owner_host, owner_boot, owner_life, lease_until, opened_ms, waited_ms)
         VALUES (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, {now_text}, {now_text}, 1, ?, ?, ?, ?, ?, ?,
                 {now_millis} + ?, {now_millis}, ?)"
    );
    let params = params![
        new.id,
        new.target,
        new.job,
        new.host,
        new.action.word(),
        new.path,
        new.kind.map(TargetType::word),
        new.source,
        request.as_str(),
        new.path,
        new.pool(),
        new.access.map(Access::word),
        new.owner.host.as_str(),
        new.owner.boot.as_str(),
        new.owner.life.as_deref(),
        new.lease,
        new.waited,
    ];
    insist(store.patience(), || store.execute_alone(&sql, params)).map(|_| ())
}

/// Whether the operation is pending, by just this run. Where there is no life lock to tell runs
/// apart, it is not said.
fn is_there(store: &mut dyn Store, new: &Opening<'_>) -> Result<bool> {
    let rows = store.query(
        "SELECT owner_life FROM backup_target_mount_operations
         WHERE id = ? AND pending = 1 AND owner_host = ? AND owner_boot = ?",
        params![new.id, new.owner.host.as_str(), new.owner.boot.as_str()],
    )?;
    let life = rows.first().and_then(|row| row.text(0));
    Ok(life.is_some() && life == new.owner.life)
}

/// Notes an operation that could not be opened: others were in the way for too long.
pub(crate) fn give_up(store: &mut dyn Store, new: &Opening<'_>, answer: &Response) -> Result<()> {
    let request = new.request.journal_data().to_string();
    transaction(store, |store, now| {
        store.execute(
            "INSERT INTO backup_target_mount_operations
             (id, backup_target_id, job_id, host, action, status, error_msg, error_code,
              request_data, response_data, created_at, updated_at, completed_at,
              opened_ms, closed_ms, waited_ms)
             VALUES (?, ?, ?, ?, ?, 'error', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                new.id,
                new.target,
                new.job,
                new.host,
                new.action.word(),
                answer.error_msg.as_deref(),
                answer.error_code.as_ref().map(|code| code.word()),
                request.as_str(),
                written(answer),
                now.text.as_str(),
                now.text.as_str(),
                now.text.as_str(),
                now.millis,
                now.millis,
                new.waited,
            ],
        )?;
        Ok(())
    })
}

fn written(answer: &Response) -> String {
    serde_json::to_string(answer).expect("a response is plain data")
}

/// Opens an operation again that is not pending any more: the same request came once more.
/// [`StoreError::Duplicate`] as for [`open`]; false if it has changed since it was looked at.
pub(crate) fn reopen(store: &mut dyn Store, seen: &Operation, new: &Opening<'_>) -> Result<bool> {
    transaction(store, |store, now| {
        let changed = store.execute(
            "UPDATE backup_target_mount_operations
             SET status = 'pending', pending = 1, pending_path = ?, pending_pool = ?, seq = NULL, decision = NULL,
                 error_code = NULL, error_msg = NULL, success_msg = NULL, response_data = NULL,
                 completed_at = NULL, closed_ms = NULL, updated_at = ?, owner_host = ?,
                 owner_boot = ?, owner_life = ?, lease_until = ?, opened_ms = ?, waited_ms = ?
             WHERE id = ? AND status = ? AND pending IS NULL",
            params![
                new.path,
                new.pool(),
                now.text.as_str(),
                new.owner.host.as_str(),
                new.owner.boot.as_str(),
                new.owner.life.as_deref(),
                now.millis + new.lease,
                now.millis,
                new.waited,
                seen.id.as_str(),
                seen.status.as_str(),
            ],
        )?;
        Ok(changed == 1)
    })
}

/// Writes the decision into a pending operation, with the next fence of its target on its host,
/// which it returns. Part of the caller's transaction.
pub(crate) fn decide(
    store: &mut dyn Store,
    id: &str,
    target: &str,
    host: &str,
    path: &str,
    decision: Decision,
    now: &Now,
) -> Result<u64> {
    let seq = next_fence(store, target, host)?;
    let word = match decision {
        Decision::Mount => "mount",
        Decision::Unmount => "unmount",
        Decision::Release => "release",
    };
    let changed = store.execute(
        "UPDATE backup_target_mount_operations
         SET seq = ?, decision = ?, mount_path = ?, updated_at = ?
         WHERE id = ? AND pending = 1",
        params![seq, word, path, now.text.as_str(), id],
    )?;
    if changed == 0 {
        return Err(StoreError::Failed(format!(
            "operation {id} was taken over while it was planned"
        )));
    }
    Ok(u64::try_from(seq).unwrap_or_default())
}

fn next_fence(store: &mut dyn Store, target: &str, host: &str) -> Result<i64> {
    if let Some(seq) = store.count_fence(target, host)? {
        return Ok(seq);
    }
    store.execute(
        "INSERT INTO backup_target_mount_fences (backup_target_id, host, seq) VALUES (?, ?, 1)",
        params![target, host],
    )?;
    Ok(1)
}

/// Ends a pending operation with this answer, if it is still the one that was planned. Part of
/// the caller's transaction.
pub(crate) fn close(
    store: &mut dyn Store,
    id: &str,
    seq: Option<u64>,
    answer: &Response,
    now: &Now,
) -> Result<bool> {
    let seq = seq.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let same_fence = same_fence(seq);
    let sql = format!(
        "UPDATE backup_target_mount_operations
         SET status = ?, pending = NULL, pending_path = NULL, pending_pool = NULL, error_msg = ?, success_msg = ?,
             error_code = ?, response_data = ?, updated_at = ?, completed_at = ?, closed_ms = ?
         WHERE id = ? AND pending = 1 AND {same_fence}"
    );
    let changed = store.execute(
        &sql,
        params![
            status_word(answer),
            answer.error_msg.as_deref(),
            answer.success_msg.as_deref(),
            answer.error_code.as_ref().map(|code| code.word()),
            written(answer),
            now.text.as_str(),
            now.text.as_str(),
            now.millis,
            id,
            seq,
        ],
    )?;
    Ok(changed == 1)
}

/// The condition that a row still has this fence, with one question mark.
fn same_fence(seq: Option<i64>) -> &'static str {
    if seq.is_some() { "seq = ?" } else { "seq IS NULL AND ? IS NULL" }
}

/// What an answer is in the journal: an unknown outcome is no error.
fn status_word(answer: &Response) -> &'static str {
    match &answer.error_code {
        _ if !answer.is_error() => "success",
        Some(code) if code.leaves_outcome_unknown() => "unsettled",
        _ => "error",
    }
}

/// Takes a pending operation over from an owner that ended: its outcome is unknown. Part of the
/// caller's transaction; false if somebody else was first.
pub(crate) fn take_over(store: &mut dyn Store, seen: &Operation, now: &Now) -> Result<bool> {
    let same_fence = same_fence(seen.seq);
    let changed = store.execute(
        &format!(
            "UPDATE backup_target_mount_operations
             SET status = 'unsettled', pending = NULL, pending_path = NULL, pending_pool = NULL,
                 error_code = 'internal', error_msg = ?, updated_at = ?, completed_at = ?,
                 closed_ms = ?
             WHERE id = ? AND pending = 1 AND {same_fence}"
        ),
        params![
            "the pipeline ended before the outcome was recorded",
            now.text.as_str(),
            now.text.as_str(),
            now.millis,
            seen.id.as_str(),
            seen.seq,
        ],
    )?;
    Ok(changed == 1)
}

/// The host is dead: nothing of it is pending or unknown any more. Part of the caller's transaction.
pub(crate) fn bury(
    store: &mut dyn Store,
    host: &str,
    target: Option<&str>,
    now: &Now,
) -> Result<()> {
    let which = if target.is_some() { "backup_target_id = ?" } else { "? IS NULL" };
    store.execute(
        &format!(
            "UPDATE backup_target_mount_operations
             SET status = 'error', pending = NULL, pending_path = NULL, pending_pool = NULL,
                 error_code = 'internal', error_msg = ?, updated_at = ?, completed_at = ?,
                 closed_ms = ?
             WHERE host = ? AND {which} AND (pending = 1 OR status = 'unsettled')"
        ),
        params![
            "an operator has said that the host is dead",
            now.text.as_str(),
            now.text.as_str(),
            now.millis,
            host,
            target,
        ],
    )?;
    Ok(())
}

/// The state of the target on the host is known again: earlier unknown outcomes do not matter.
/// Part of the caller's transaction.
pub(crate) fn settle(store: &mut dyn Store, plan: &Plan, now: &Now) -> Result<()> {
    store.execute(
        "UPDATE backup_target_mount_operations SET status = 'error', updated_at = ?
         WHERE backup_target_id = ? AND host = ? AND status = 'unsettled'",
        params![now.text.as_str(), plan.target.as_str(), plan.host.as_str()],
    )?;
    Ok(())
}
