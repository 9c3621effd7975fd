//! The tables.
//!
//! `backup_target_mount_ledger` is the table of the Python client, which reads and writes it too:
//! its columns and index names are kept, ours may be NULL. `backup_target_mount_operations` is the
//! journal. Beside them the counters of the fences, and a page about the ledger itself.

use crate::store::{Result, Store, StoreError, params, transaction};

/// The version of the tables below.
const VERSION: &str = "1";

/// For SQLite, where the names of indexes are the database's, not the table's.
pub(crate) const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS backup_target_mount_ledger (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at DATETIME NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME NULL DEFAULT CURRENT_TIMESTAMP,
    deleted_at DATETIME NULL,
    deleted BOOLEAN NOT NULL DEFAULT 0,
    version VARCHAR(32) NULL,
    backup_target_id VARCHAR(255) NOT NULL,
    jobid INT NOT NULL,
    host VARCHAR(255) NOT NULL,
    mounted BOOLEAN NOT NULL DEFAULT 0,
    mount_path VARCHAR(512) NULL,
    type VARCHAR(16) NULL,
    source VARCHAR(2048) NULL,
    access VARCHAR(16) NULL,
    owner VARCHAR(512) NULL,
    UNIQUE (jobid, backup_target_id, host)
);
CREATE INDEX IF NOT EXISTS idx_backup_target_id ON backup_target_mount_ledger (backup_target_id);
CREATE INDEX IF NOT EXISTS idx_jobid ON backup_target_mount_ledger (jobid);
CREATE INDEX IF NOT EXISTS idx_job_id ON backup_target_mount_ledger (jobid);
CREATE INDEX IF NOT EXISTS idx_host ON backup_target_mount_ledger (host);
CREATE INDEX IF NOT EXISTS idx_job_target ON backup_target_mount_ledger (jobid, backup_target_id);
CREATE INDEX IF NOT EXISTS idx_mounted_host ON backup_target_mount_ledger (mounted, host);
CREATE INDEX IF NOT EXISTS idx_deleted ON backup_target_mount_ledger (deleted);
CREATE INDEX IF NOT EXISTS idx_target_host_mounted
    ON backup_target_mount_ledger (backup_target_id, host, mounted);
CREATE INDEX IF NOT EXISTS idx_host_mounted ON backup_target_mount_ledger (host, mounted);

CREATE TABLE IF NOT EXISTS backup_target_mount_operations (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    backup_target_id VARCHAR(255) NOT NULL,
    job_id INT NOT NULL,
    host VARCHAR(255) NOT NULL,
    action VARCHAR(20) NOT NULL,
    status VARCHAR(20) NOT NULL,
    mount_path VARCHAR(512) NULL,
    error_msg TEXT NULL,
    success_msg TEXT NULL,
    request_data TEXT NULL,
    response_data TEXT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    completed_at DATETIME NULL,
    error_code VARCHAR(32) NULL,
    decision VARCHAR(20) NULL,
    type VARCHAR(16) NULL,
    source VARCHAR(2048) NULL,
    pending INT NULL,
    pending_path VARCHAR(512) NULL,
    seq BIGINT NULL,
    owner_host VARCHAR(255) NULL,
    owner_boot VARCHAR(64) NULL,
    owner_life VARCHAR(4096) NULL,
    lease_until BIGINT NULL,
    UNIQUE (backup_target_id, host, pending),
    UNIQUE (host, pending_path)
);
CREATE INDEX IF NOT EXISTS operations_idx_target_created
    ON backup_target_mount_operations (backup_target_id, created_at);
CREATE INDEX IF NOT EXISTS operations_idx_job_target
    ON backup_target_mount_operations (job_id, backup_target_id);
CREATE INDEX IF NOT EXISTS operations_idx_host ON backup_target_mount_operations (host);
CREATE INDEX IF NOT EXISTS operations_idx_status ON backup_target_mount_operations (status);
CREATE INDEX IF NOT EXISTS operations_idx_created ON backup_target_mount_operations (created_at);
CREATE INDEX IF NOT EXISTS operations_idx_pending ON backup_target_mount_operations (pending);
CREATE INDEX IF NOT EXISTS operations_idx_target_host_status
    ON backup_target_mount_operations (backup_target_id, host, status);

CREATE TABLE IF NOT EXISTS backup_target_mount_fences (
    backup_target_id VARCHAR(255) NOT NULL,
    host VARCHAR(255) NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (backup_target_id, host)
);

CREATE TABLE IF NOT EXISTS dms_ledger_about (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
);
";

/// Makes the ledger if it is not there, and checks that it is one that this program knows: another
/// one is not touched. Safe to run again, and by two at once. Returns the ledger's id.
pub(crate) fn open(store: &mut dyn Store, new_id: &str) -> Result<String> {
    // That there is no such table yet is an error like any other; then it is made, or fails again.
    let version = about(store, "schema_version").unwrap_or_default();
    if version.is_none() {
        create(store, new_id)?;
    }
    match about(store, "schema_version")? {
        Some(version) if version == VERSION => {}
        Some(version) => {
            return Err(StoreError::Unusable(format!(
                "the ledger has schema version {version}; this program knows version {VERSION}"
            )));
        }
        None => return Err(StoreError::Unusable("the ledger says no schema version".into())),
    }
    about(store, "uuid")?.ok_or_else(|| StoreError::Failed("the ledger has no id".into()))
}

fn create(store: &mut dyn Store, new_id: &str) -> Result<()> {
    transaction(store, |store, _| {
        // Somebody else's file, or two of us at once.
        if !store.is_empty()? && about(store, "schema_version").is_err() {
            return Err(StoreError::Unusable(
                "the database holds other tables, and no ledger".into(),
            ));
        }
        store.create()?;
        for (name, value) in [("schema_version", VERSION), ("uuid", new_id)] {
            if about(store, name)?.is_none() {
                store.execute(
                    "INSERT INTO dms_ledger_about (name, value) VALUES (?, ?)",
                    params![name, value],
                )?;
            }
        }
        Ok(())
    })
}

fn about(store: &mut dyn Store, name: &str) -> Result<Option<String>> {
    let rows = store.query("SELECT value FROM dms_ledger_about WHERE name = ?", params![name])?;
    Ok(rows.first().and_then(|row| row.text(0)))
}
