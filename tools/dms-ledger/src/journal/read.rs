//! Reading the journal.

use std::path::PathBuf;

use dms_wire::{Access, Action};

use crate::bindings::Binding;
use crate::owner::Owner;
use crate::store::{Result, Row, Store, Value, params};

/// What is known of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) target: String,
    pub(crate) job: i64,
    pub(crate) host: String,
    pub(crate) action: String,
    pub(crate) status: String,
    pub(crate) path: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) success: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) created: Option<String>,
    pub(crate) completed: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) access: Option<String>,
    pub(crate) seq: Option<i64>,
    pub(crate) lease_until: i64,
    /// Milliseconds that it waited for locks, and for others on its target.
    pub(crate) waited: Option<i64>,
    pub(crate) owner: Owner,
}

const COLUMNS: &str = "id, backup_target_id, job_id, host, action, status, mount_path, error_msg, \
                       success_msg, response_data, created_at, completed_at, error_code, type, \
                       source, seq, lease_until, owner_host, owner_boot, owner_life, \
                       waited_ms, access";

impl Operation {
    fn from_row(row: &Row) -> Operation {
        Operation {
            id: row.text(0).unwrap_or_default(),
            target: row.text(1).unwrap_or_default(),
            job: row.int(2).unwrap_or_default(),
            host: row.text(3).unwrap_or_default(),
            action: row.text(4).unwrap_or_default(),
            status: row.text(5).unwrap_or_default(),
            path: row.text(6),
            error: row.text(7),
            success: row.text(8),
            response: row.text(9),
            created: row.text(10),
            completed: row.text(11),
            error_code: row.text(12),
            kind: row.text(13),
            source: row.text(14),
            access: row.text(21),
            seq: row.int(15),
            lease_until: row.int(16).unwrap_or_default(),
            waited: row.int(20),
            owner: Owner {
                host: row.text(17).unwrap_or_default(),
                boot: row.text(18).unwrap_or_default(),
                life: row.text(19),
                lives: PathBuf::new(),
                one_at_a_time: false,
            },
        }
    }

    /// Whether a job has asked for it.
    pub(crate) fn has_job(&self) -> bool {
        self.action != Action::Settle.word()
    }

    /// Whether it is to let its host write to a pool.
    pub(crate) fn may_write_to_pool(&self) -> bool {
        self.access.as_deref() == Some(Access::ReadWrite.word())
    }

    /// Whether nothing has made sure yet what became of it.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.status == "unsettled"
    }

    /// Whether the act may have happened although the row does not say success.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unsettled()
            || matches!(self.error_code.as_deref(), Some("timeout" | "broker" | "internal"))
    }
}

/// What to look for; `None` is any.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) id: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) job: Option<i32>,
    pub(crate) host: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) pending_only: bool,
    pub(crate) limit: Option<u32>,
}

/// The operations that match, newest first.
pub(crate) fn find(store: &mut dyn Store, filter: &Filter) -> Result<Vec<Operation>> {
    let mut sql = format!("SELECT {COLUMNS} FROM backup_target_mount_operations WHERE 1 = 1");
    let mut values: Vec<Value> = Vec::new();
    if filter.pending_only {
        sql.push_str(" AND pending = 1");
    }
    if let Some(job) = filter.job {
        sql.push_str(" AND job_id = ?");
        values.push(job.into());
    }
    for (column, value) in [
        ("id", &filter.id),
        ("backup_target_id", &filter.target),
        ("host", &filter.host),
        ("pending_path", &filter.path),
        ("status", &filter.status),
    ] {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value.as_str().into());
        }
    }
    // By this alone there are indexes: with a second column, a server sorts a target's whole past.
    sql.push_str(" ORDER BY created_at DESC");
    if let Some(limit) = filter.limit {
        sql.push_str(" LIMIT ?");
        values.push(i64::from(limit).into());
    }
    let mut found: Vec<Operation> =
        store.query(&sql, &values)?.iter().map(Operation::from_row).collect();
    // Within a millisecond, in the order in which they were planned.
    found.sort_by(|a, b| b.created.cmp(&a.created).then(b.seq.cmp(&a.seq)));
    Ok(found)
}

/// The target, as the last mount of the job that succeeded was asked for it; only what the journal
/// keeps of a request.
pub(crate) fn last_mount(
    store: &mut dyn Store,
    user: &Binding,
) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let rows = store.query(
        "SELECT request_data FROM backup_target_mount_operations
         WHERE backup_target_id = ? AND host = ? AND status = 'success' AND action = 'mount'
         AND job_id = ? ORDER BY created_at DESC LIMIT 1",
        params![user.target.as_str(), user.host.as_str(), user.job],
    )?;
    let text = rows.first().and_then(|row| row.text(0)).unwrap_or_default();
    let request = serde_json::from_str::<serde_json::Value>(&text).ok();
    Ok(request.and_then(|request| request.get("backup_target")?.as_object().cloned()))
}

/// The highest fence of what the job has got done on the target there.
pub(crate) fn last_fence_done(
    store: &mut dyn Store,
    job: i32,
    target: &str,
    host: &str,
) -> Result<Option<i64>> {
    let rows = store.query(
        "SELECT MAX(seq) FROM backup_target_mount_operations
         WHERE job_id = ? AND backup_target_id = ? AND host = ? AND status = 'success'",
        params![job, target, host],
    )?;
    Ok(rows.first().and_then(|row| row.int(0)))
}
