//! The tables in SQLite's words.

use crate::schema::Dialect;

/// SQLite.
pub(crate) const SQLITE: Dialect = Dialect {
    tables: &TABLES,
    is_embedded: true,
    id: None,
    now_text: "strftime('%Y-%m-%d %H:%M:%f', 'now')",
    now_millis: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    count_fence: "INSERT INTO backup_target_mount_fences (backup_target_id, host, seq)
     VALUES (?, ?, 1) ON CONFLICT (backup_target_id, host) DO UPDATE SET seq = seq + 1
     RETURNING seq",
    bytewise: &[],
};

const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS backup_target_mount_ledger (
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
    boot VARCHAR(64) NULL,
    CONSTRAINT uq_job_target_host UNIQUE (jobid, backup_target_id, host)
)",
    "CREATE TABLE IF NOT EXISTS backup_target_mount_operations (
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
    opened_ms BIGINT NULL,
    closed_ms BIGINT NULL,
    waited_ms BIGINT NULL,
    access VARCHAR(16) NULL,
    pending_pool VARCHAR(255) NULL,
    CONSTRAINT uq_pending UNIQUE (backup_target_id, host, pending),
    CONSTRAINT uq_pending_path UNIQUE (host, pending_path)
)",
    "CREATE TABLE IF NOT EXISTS backup_target_mount_fences (
    backup_target_id VARCHAR(255) NOT NULL,
    host VARCHAR(255) NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (backup_target_id, host)
)",
    "CREATE TABLE IF NOT EXISTS backup_target_mount_totals (
    host VARCHAR(255) NOT NULL,
    action VARCHAR(20) NOT NULL,
    decision VARCHAR(20) NOT NULL,
    status VARCHAR(20) NOT NULL,
    error_code VARCHAR(32) NOT NULL,
    operations BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    waited_ms BIGINT NOT NULL,
    PRIMARY KEY (host, action, decision, status, error_code)
)",
    "CREATE TABLE IF NOT EXISTS dms_ledger_about (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
)",
];
