//! The journal: one row per operation, and at most one pending for a target on a host.

mod read;

pub(crate) use read::{Filter, Operation, find, last_fence_done, last_mount};

use dms_wire::{Access, Action, Decision, Plan, Request, Response, TargetType};

use crate::owner::Owner;
use crate::store::{Result, Row, Statement, Store, StoreError, params, transaction, values};

/// What a new operation is going to be.
pub(crate) struct Opening<'a> {
    pub(crate) id: &'a str,
    pub(crate) target: &'a str,
    pub(crate) job: i32,
    pub(crate) host: &'a str,
    pub(crate) action: Action,
    /// Where it is to be mounted; of an unmount, where the request says.
    pub(crate) path: &'a str,
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
    /// What will be decided, mostly: who opens an operation writes that down at once.
    fn decision(&self) -> Decision {
        match self.action {
            Action::Mount => Decision::Mount,
            Action::Unmount => Decision::Release,
            Action::Settle => Decision::Unmount,
        }
    }

    /// Two pending mounts cannot have the same path.
    fn pending_path(&self) -> Option<&str> {
        (self.action == Action::Mount).then_some(self.path)
    }

    /// A pool that is to be imported read-write: no two hosts may do that at once.
    fn pool(&self) -> Option<&str> {
        // No pool has a longer name: the node refuses it.
        let pool = self.source.filter(|pool| pool.len() <= 255);
        pool.filter(|_| self.access == Some(Access::ReadWrite))
    }
}

/// Opens an operation: once the caller's transaction is committed, it is the only one pending for its
/// target on its host, with the next fence there. `seen`: it was there before, and is opened again.
/// `looks`: what to ask then, in the same round trip. Returns the fence, and the rows that were asked for.
///
/// [`StoreError::Duplicate`] if another is pending, or has its id or path; [`StoreError::Overtaken`] if
/// it has changed since it was seen.
pub(crate) fn open(
    store: &mut dyn Store,
    new: &Opening<'_>,
    seen: Option<&Operation>,
    looks: Vec<Statement>,
) -> Result<(i64, Vec<Vec<Row>>)> {
    let fence = Statement::new(store.dialect().count_fence, values![new.target, new.host]);
    let row = seen.map_or_else(|| insert(new), |seen| reopen(seen, new));
    let statements: Vec<Statement> = [fence, row].into_iter().chain(looks).collect();
    let mut answers = store.run_all(&statements)?.into_iter();
    let fence = answers.next().and_then(|fence| fence.counted());
    let fence = fence.ok_or_else(|| StoreError::Failed("nobody says what the fence is".into()))?;
    match answers.next() {
        Some(opened) if opened.changed == 1 => {}
        _ => return Err(StoreError::Overtaken),
    }
    Ok((fence, answers.map(|answer| answer.rows).collect()))
}

/// Whether the operation is there with this fence, and pending; `None`: it is not there.
pub(crate) fn is_open(store: &mut dyn Store, id: &str, seq: u64) -> Result<Option<bool>> {
    let sql = "SELECT pending FROM backup_target_mount_operations WHERE id = ? AND seq = ?";
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let rows = store.query(sql, params![id, seq])?;
    Ok(rows.first().map(|row| row.int(0) == Some(1)))
}

/// Whether the operation is pending, with this fence and this decision.
pub(crate) fn is_planned(
    store: &mut dyn Store,
    id: &str,
    seq: u64,
    decision: Decision,
) -> Result<bool> {
    let sql = "SELECT 1 FROM backup_target_mount_operations
               WHERE id = ? AND pending = 1 AND seq = ? AND decision = ?";
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    Ok(!store.query(sql, params![id, seq, decision_word(decision)])?.is_empty())
}

/// The fence that was counted just now, with two question marks.
const FENCE: &str =
    "(SELECT seq FROM backup_target_mount_fences WHERE backup_target_id = ? AND host = ?)";

fn insert(new: &Opening<'_>) -> Statement {
    let request = new.request.journal_data().to_string();
    let sql = format!(
        "INSERT INTO backup_target_mount_operations
         (id, backup_target_id, job_id, host, action, status, mount_path, type, source,
          request_data, created_at, updated_at, pending, pending_path, pending_pool, access,
          owner_host, owner_boot, owner_life, lease_until, opened_ms, waited_ms, decision, seq)
         VALUES (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, NOW_TEXT, NOW_TEXT, 1, ?, ?, ?, ?, ?, ?,
                 NOW_MILLIS + ?, NOW_MILLIS, ?, ?, {FENCE})"
    );
    let params = values![
        new.id,
        new.target,
        new.job,
        new.host,
        new.action.word(),
        new.path,
        new.kind.map(TargetType::word),
        new.source,
        request.as_str(),
        new.pending_path(),
        new.pool(),
        new.access.map(Access::word),
        new.owner.host.as_str(),
        new.owner.boot.as_str(),
        new.owner.life.as_deref(),
        new.lease,
        new.waited,
        decision_word(new.decision()),
        new.target,
        new.host,
    ];
    Statement::new(sql, params)
}

/// The same request came once more.
fn reopen(seen: &Operation, new: &Opening<'_>) -> Statement {
    let sql = format!(
        "UPDATE backup_target_mount_operations
         SET status = 'pending', pending = 1, mount_path = ?, pending_path = ?, pending_pool = ?,
             error_code = NULL, error_msg = NULL, success_msg = NULL, response_data = NULL,
             completed_at = NULL, closed_ms = NULL, updated_at = NOW_TEXT, owner_host = ?,
             owner_boot = ?, owner_life = ?, lease_until = NOW_MILLIS + ?, opened_ms = NOW_MILLIS,
             waited_ms = ?, decision = ?, seq = {FENCE}
         WHERE id = ? AND status = ? AND pending IS NULL"
    );
    let params = values![
        new.path,
        new.pending_path(),
        new.pool(),
        new.owner.host.as_str(),
        new.owner.boot.as_str(),
        new.owner.life.as_deref(),
        new.lease,
        new.waited,
        decision_word(new.decision()),
        new.target,
        new.host,
        seen.id.as_str(),
        seen.status.as_str(),
    ];
    Statement::new(sql, params)
}

/// Writes down what was decided, where it is not what the row was opened with. Part of the caller's
/// transaction.
pub(crate) fn decide(
    store: &mut dyn Store,
    new: &Opening<'_>,
    decision: Decision,
    path: &str,
) -> Result<()> {
    if decision == new.decision() && path == new.path {
        return Ok(());
    }
    let sql = "UPDATE backup_target_mount_operations SET decision = ?, mount_path = ? WHERE id = ?";
    store.execute(sql, params![decision_word(decision), path, new.id]).map(|_| ())
}

fn decision_word(decision: Decision) -> &'static str {
    match decision {
        Decision::Mount => "mount",
        Decision::Unmount => "unmount",
        Decision::Release => "release",
    }
}

/// Notes an operation that could not be opened: others were in the way for too long.
pub(crate) fn give_up(store: &mut dyn Store, new: &Opening<'_>, answer: &Response) -> Result<()> {
    let request = new.request.journal_data().to_string();
    transaction(store, |store| {
        store.execute(
            "INSERT INTO backup_target_mount_operations
             (id, backup_target_id, job_id, host, action, status, error_msg, error_code,
              request_data, response_data, created_at, updated_at, completed_at,
              opened_ms, closed_ms, waited_ms)
             VALUES (?, ?, ?, ?, ?, 'error', ?, ?, ?, ?, NOW_TEXT, NOW_TEXT, NOW_TEXT,
                     NOW_MILLIS, NOW_MILLIS, ?)",
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
                new.waited,
            ],
        )?;
        Ok(())
    })
}

fn written(answer: &Response) -> String {
    serde_json::to_string(answer).expect("a response is plain data")
}

/// Ends a pending operation with this answer, if it is still the one that was planned: then it changes
/// a row.
pub(crate) fn closing(id: &str, seq: u64, answer: &Response) -> Statement {
    Statement::new(
        "UPDATE backup_target_mount_operations
         SET status = ?, pending = NULL, pending_path = NULL, pending_pool = NULL, error_msg = ?,
             success_msg = ?, error_code = ?, response_data = ?, updated_at = NOW_TEXT,
             completed_at = NOW_TEXT, closed_ms = NOW_MILLIS
         WHERE id = ? AND pending = 1 AND seq = ?",
        values![
            status_word(answer),
            answer.error_msg.as_deref(),
            answer.success_msg.as_deref(),
            answer.error_code.as_ref().map(|code| code.word()),
            written(answer),
            id,
            i64::try_from(seq).unwrap_or(i64::MAX),
        ],
    )
}

/// The same, at once. Part of the caller's transaction; false if it is not.
pub(crate) fn close(store: &mut dyn Store, id: &str, seq: u64, answer: &Response) -> Result<bool> {
    let answers = store.run_all(&[closing(id, seq, answer)])?;
    Ok(answers.first().is_some_and(|answer| answer.changed == 1))
}

/// Writes to the row of an operation, and changes nothing. What a file could not write down it keeps behind
/// its end, where the next process finds it and takes it for committed, unless something is written there.
pub(crate) fn touch(store: &mut dyn Store, id: &str) -> Result<()> {
    let sql = "UPDATE backup_target_mount_operations SET updated_at = NOW_TEXT WHERE id = ?";
    store.execute(sql, params![id]).map(|_| ())
}

/// Ends an operation that was opened in the same transaction: nothing is done for it, nor was anything
/// decided.
pub(crate) fn refuse(store: &mut dyn Store, id: &str, seq: u64, answer: &Response) -> Result<()> {
    close(store, id, seq, answer)?;
    let sql = "UPDATE backup_target_mount_operations SET decision = NULL WHERE id = ?";
    store.execute(sql, params![id]).map(|_| ())
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
pub(crate) fn take_over(store: &mut dyn Store, seen: &Operation) -> Result<bool> {
    let same_fence = same_fence(seen.seq);
    let changed = store.execute(
        &format!(
            "UPDATE backup_target_mount_operations
             SET status = 'unsettled', pending = NULL, pending_path = NULL, pending_pool = NULL,
                 error_code = 'internal', error_msg = ?, updated_at = NOW_TEXT,
                 completed_at = NOW_TEXT, closed_ms = NOW_MILLIS
             WHERE id = ? AND pending = 1 AND {same_fence}"
        ),
        params!["the pipeline ended before the outcome was recorded", seen.id.as_str(), seen.seq,],
    )?;
    Ok(changed == 1)
}

/// The host is dead: nothing of it is pending or unknown any more. Part of the caller's transaction.
pub(crate) fn bury(store: &mut dyn Store, host: &str, target: Option<&str>) -> Result<()> {
    let which = if target.is_some() { "backup_target_id = ?" } else { "? IS NULL" };
    store.execute(
        &format!(
            "UPDATE backup_target_mount_operations
             SET status = 'error', pending = NULL, pending_path = NULL, pending_pool = NULL,
                 error_code = 'internal', error_msg = ?, updated_at = NOW_TEXT,
                 completed_at = NOW_TEXT, closed_ms = NOW_MILLIS
             WHERE host = ? AND {which} AND (pending = 1 OR status = 'unsettled')"
        ),
        params!["an operator has said that the host is dead", host, target,],
    )?;
    Ok(())
}

/// The state of the target on the host is known again: earlier unknown outcomes do not matter.
pub(crate) fn settling(plan: &Plan) -> Statement {
    Statement::new(
        "UPDATE backup_target_mount_operations SET status = 'error', updated_at = NOW_TEXT
         WHERE backup_target_id = ? AND host = ? AND status = 'unsettled'",
        values![plan.target.as_str(), plan.host.as_str()],
    )
}
