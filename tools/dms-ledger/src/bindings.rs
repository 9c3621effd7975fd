//! The bindings: one row per job, target and host, and whether the job uses the target there.
//!
//! Only `deleted` says that a row is gone; the Python client sets `deleted_at` on live rows too.

use dms_wire::{Access, Owner, Plan};

use crate::store::{Result, Row, Statement, Store, StoreError, Value, params, values};
use crate::wish::Wish;

/// A job's use of a target on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) job: i64,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) mounted: bool,
    pub(crate) deleted: bool,
    pub(crate) path: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    /// How the pool is imported, if it is one.
    pub(crate) access: Option<String>,
    /// The boot of the host that it was mounted in, where the host has said so.
    pub(crate) boot: Option<String>,
    pub(crate) created: Option<String>,
    pub(crate) updated: Option<String>,
    /// Who keeps it, where that can be seen.
    pub(crate) owner: Option<Owner>,
}

const COLUMNS: &str = "jobid, backup_target_id, host, mounted, deleted, mount_path, type, source, \
                       boot, created_at, updated_at, owner, access";

/// What a row says that counts. The Python client's own table lets a live row say NULL. Nearly all
/// rows are not deleted, and a server must not think of going by that.
const ACTIVE: &str = "mounted = 1 AND COALESCE(deleted, 0) = 0";

impl Binding {
    fn from_row(mut row: Row) -> Binding {
        Binding {
            job: row.int(0).unwrap_or_default(),
            target: row.take(1).unwrap_or_default(),
            host: row.take(2).unwrap_or_default(),
            mounted: row.int(3) == Some(1),
            deleted: row.int(4) == Some(1),
            path: row.take(5),
            kind: row.take(6),
            source: row.take(7),
            boot: row.take(8),
            created: row.take(9),
            updated: row.take(10),
            owner: row.take(11).and_then(|text| Owner::from_text(&text)),
            access: row.take(12),
        }
    }
}

impl Binding {
    /// When the job last mounted the target, or left it, as the database writes it.
    pub(crate) fn touched(&self) -> Option<&str> {
        self.updated.as_deref().or(self.created.as_deref())
    }

    /// That the job was let go, for the log.
    pub(crate) fn is_over(&self, why: &str) -> String {
        format!("job {} does not use target {} any more: {why}", self.job, self.target)
    }

    /// Why it was, if its keeper has ended.
    pub(crate) fn unkept(&self) -> String {
        self.is_over("its dms-with has ended")
    }
}

/// What to look for; `None` is any.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    pub(crate) job: Option<i64>,
    pub(crate) target: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) active_only: bool,
    /// Last changed before this moment, as the database writes it.
    pub(crate) before: Option<String>,
    pub(crate) newest_first: bool,
    /// No more than so many, the first.
    pub(crate) limit: Option<usize>,
}

/// The bindings that match, oldest first unless it says otherwise.
pub(crate) fn find(store: &mut dyn Store, filter: &Filter) -> Result<Vec<Binding>> {
    ask(store, &select(COLUMNS, Vec::new(), filter))
}

/// Rows that say mounted and deleted; what is deleted does not count.
pub(crate) fn find_deleted_in_use(store: &mut dyn Store, filter: &Filter) -> Result<Vec<Binding>> {
    ask(store, &select_where("mounted = 1 AND deleted = 1", COLUMNS, Vec::new(), filter))
}

fn ask(store: &mut dyn Store, statement: &Statement) -> Result<Vec<Binding>> {
    let rows = store.query(&statement.sql, &statement.params)?;
    Ok(rows.into_iter().map(Binding::from_row).collect())
}

/// Asks for these columns of the bindings that match; `values` are for the question marks in them.
pub(crate) fn select(columns: &str, values: Vec<Value>, filter: &Filter) -> Statement {
    select_where(if filter.active_only { ACTIVE } else { "1 = 1" }, columns, values, filter)
}

fn select_where(
    condition: &str,
    columns: &str,
    mut values: Vec<Value>,
    filter: &Filter,
) -> Statement {
    let mut sql = format!("SELECT {columns} FROM backup_target_mount_ledger WHERE {condition}");
    if let Some(job) = filter.job {
        sql.push_str(" AND jobid = ?");
        values.push(job.into());
    }
    for (column, value) in [
        ("backup_target_id", &filter.target),
        ("host", &filter.host),
        ("mount_path", &filter.path),
        ("source", &filter.source),
    ] {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value.as_str().into());
        }
    }
    if let Some(before) = &filter.before {
        sql.push_str(" AND COALESCE(updated_at, created_at) < ?");
        values.push(before.as_str().into());
    }
    sql.push_str(if filter.newest_first { " ORDER BY id DESC" } else { " ORDER BY id" });
    if let Some(limit) = filter.limit {
        sql.push_str(" LIMIT ?");
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    }
    Statement::new(sql, values)
}

/// Asks whether the job has a row, used or not.
pub(crate) fn row_of(wish: &Wish<'_>) -> Statement {
    Statement::new(
        "SELECT 1 FROM backup_target_mount_ledger
         WHERE jobid = ? AND backup_target_id = ? AND host = ?",
        values![wish.job, wish.target.as_str(), wish.host.as_str()],
    )
}

/// No more are counted: an answer is not to take longer the more jobs there are.
pub(crate) const COUNTED: usize = 100;

/// How many jobs beside this one, if there is one, use the target on the host; with more than a
/// hundred it is a hundred.
pub(crate) fn count_others(
    store: &mut dyn Store,
    job: Option<i32>,
    target: &str,
    host: &str,
) -> Result<u64> {
    let other = if job.is_some() { " AND jobid <> ?" } else { "" };
    // Rows, and not their number: a server makes a table of what it has to count up to a limit.
    let sql = format!(
        "SELECT 1 FROM backup_target_mount_ledger
         WHERE {ACTIVE} AND backup_target_id = ? AND host = ?{other} LIMIT {COUNTED}"
    );
    let mut values = vec![target.into(), host.into()];
    values.extend(job.map(Value::from));
    Ok(store.query(&sql, &values)?.len() as u64)
}

/// The job's use of the target on the host.
pub(crate) fn of_job(
    store: &mut dyn Store,
    job: impl Into<i64>,
    target: &str,
    host: &str,
) -> Result<Option<Binding>> {
    let filter = Filter {
        job: Some(job.into()),
        target: Some(target.to_owned()),
        host: Some(host.to_owned()),
        active_only: true,
        ..Filter::default()
    };
    Ok(find(store, &filter)?.into_iter().next())
}

/// Rows of host, target, the number of jobs that use it there, and since when the first does.
pub(crate) fn count_users(store: &mut dyn Store) -> Result<Vec<Row>> {
    let sql = format!(
        "SELECT host, backup_target_id, COUNT(*), MIN(COALESCE(updated_at, created_at))
         FROM backup_target_mount_ledger WHERE {ACTIVE}
         GROUP BY host, backup_target_id ORDER BY host, backup_target_id"
    );
    store.query(&sql, &[])
}

/// The job is about to use the target, and has no row yet: it gets one, which says so once it does.
/// Here a key of another table is missed, and not after the mount.
pub(crate) fn announce(store: &mut dyn Store, wish: &Wish<'_>) -> Result<()> {
    let inserted = store.execute(
        "INSERT INTO backup_target_mount_ledger
         (jobid, backup_target_id, host, mounted, deleted, created_at, updated_at)
         VALUES (?, ?, ?, 0, 0, NOW_TEXT, NOW_TEXT)",
        params![wish.job, wish.target.as_str(), wish.host.as_str()],
    );
    match inserted {
        // A Python client was quicker.
        Ok(_) | Err(StoreError::Duplicate) => Ok(()),
        Err(why) => Err(why),
    }
}

/// The row is gone, for all but the history. False: the job uses the target, or there is no row.
pub(crate) fn forget(store: &mut dyn Store, binding: &Binding) -> Result<bool> {
    let changed = store.execute(
        "UPDATE backup_target_mount_ledger SET deleted = 1, deleted_at = NOW_TEXT, updated_at = NOW_TEXT
         WHERE jobid = ? AND backup_target_id = ? AND host = ? AND (mounted = 0 OR mounted IS NULL)
         AND (deleted = 0 OR deleted IS NULL)",
        params![binding.job, binding.target.as_str(), binding.host.as_str()],
    )?;
    Ok(changed == 1)
}

/// The job uses the target from now on. Changes no row if it has none; a row that it had before, even a
/// deleted one, is revived.
pub(crate) fn binding(plan: &Plan) -> Statement {
    let mut params = bound(plan).to_vec();
    params.extend(key(plan));
    Statement::new(
        "UPDATE backup_target_mount_ledger
         SET mounted = 1, deleted = 0, deleted_at = NULL, mount_path = ?, type = ?, source = ?,
             access = ?, boot = ?, owner = ?, updated_at = NOW_TEXT
         WHERE jobid = ? AND backup_target_id = ? AND host = ?",
        params,
    )
}

/// The same for a job that has no row.
pub(crate) fn insert(store: &mut dyn Store, plan: &Plan) -> Result<()> {
    let mut params = bound(plan).to_vec();
    params.extend(key(plan));
    store.execute(
        "INSERT INTO backup_target_mount_ledger
         (mount_path, type, source, access, boot, owner, jobid, backup_target_id, host,
          mounted, deleted, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, NOW_TEXT, NOW_TEXT)",
        &params,
    )?;
    Ok(())
}

/// What a binding says of what is mounted, and of who keeps it.
fn bound(plan: &Plan) -> [Value; 6] {
    // A node's own word: what is no boot's id is not kept.
    let boot = plan.boot.as_deref().filter(|boot| boot.len() <= 64);
    [
        plan.path.as_str().into(),
        plan.kind.map(dms_wire::TargetType::word).into(),
        plan.source.as_deref().into(),
        plan.access.map(Access::word).into(),
        boot.into(),
        plan.owner.as_ref().map(Owner::text).into(),
    ]
}

/// Whose binding it is.
fn key(plan: &Plan) -> [Value; 3] {
    [plan.job.into(), plan.target.as_str().into(), plan.host.as_str().into()]
}

/// The job does not use the target any more.
pub(crate) fn releasing(job: i64, target: &str, host: &str) -> Statement {
    Statement::new(
        "UPDATE backup_target_mount_ledger
         SET mounted = 0, boot = NULL, owner = NULL, updated_at = NOW_TEXT
         WHERE jobid = ? AND backup_target_id = ? AND host = ? AND mounted = 1",
        values![job, target, host],
    )
}

/// The same, at once. Part of the caller's transaction.
pub(crate) fn release(store: &mut dyn Store, job: i64, target: &str, host: &str) -> Result<()> {
    store.run_all(&[releasing(job, target, host)]).map(|_| ())
}

/// The job does not use the target any more, as far as one could see. False: the job has mounted it
/// or left meanwhile. Part of the caller's transaction.
pub(crate) fn release_as_seen(store: &mut dyn Store, seen: &Binding) -> Result<bool> {
    let changed = store.execute(
        "UPDATE backup_target_mount_ledger
         SET mounted = 0, boot = NULL, owner = NULL, updated_at = NOW_TEXT
         WHERE jobid = ? AND backup_target_id = ? AND host = ? AND mounted = 1
         AND COALESCE(boot, '') = ? AND COALESCE(updated_at, created_at) = ?",
        params![
            seen.job,
            seen.target.as_str(),
            seen.host.as_str(),
            seen.boot.as_deref().unwrap_or_default(),
            seen.touched()
        ],
    )?;
    Ok(changed == 1)
}
