//! The tables in the words of MySQL 5.7 and MariaDB 10.3, and of all later ones.
//!
//! Ids compare by their bytes, whatever the server's default is.

use crate::schema::Dialect;

/// MySQL and MariaDB.
pub(crate) const MYSQL: Dialect = Dialect {
    tables: &TABLES,
    is_embedded: false,
    id: Some("INT NOT NULL AUTO_INCREMENT UNIQUE"),
    now_text: "NOW(3)",
    now_millis: "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
    // LAST_INSERT_ID(x) is x, and what the server tells beside its answer.
    count_fence: "INSERT INTO backup_target_mount_fences (backup_target_id, host, seq)
     VALUES (?, ?, LAST_INSERT_ID(1)) ON DUPLICATE KEY UPDATE seq = LAST_INSERT_ID(seq + 1)",
    bytewise: &BYTEWISE,
};

const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS backup_target_mount_ledger (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    created_at DATETIME(3) NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at DATETIME(3) NULL DEFAULT CURRENT_TIMESTAMP(3)
        ON UPDATE CURRENT_TIMESTAMP(3),
    deleted_at DATETIME(3) NULL,
    deleted TINYINT(1) NOT NULL DEFAULT 0,
    version VARCHAR(32) NULL,
    backup_target_id VARCHAR(255) NOT NULL,
    jobid INT NOT NULL,
    host VARCHAR(255) NOT NULL,
    mounted TINYINT(1) NOT NULL DEFAULT 0,
    mount_path VARCHAR(512) NULL,
    type VARCHAR(16) NULL,
    source VARCHAR(2048) NULL,
    access VARCHAR(16) NULL,
    owner VARCHAR(512) NULL,
    boot VARCHAR(64) NULL,
    UNIQUE KEY uq_job_target_host (jobid, backup_target_id, host)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
    DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS backup_target_mount_operations (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    backup_target_id VARCHAR(255) NOT NULL,
    job_id INT NOT NULL,
    host VARCHAR(255) NOT NULL,
    action VARCHAR(20) NOT NULL,
    status VARCHAR(20) NOT NULL,
    mount_path VARCHAR(512) NULL,
    error_msg MEDIUMTEXT NULL,
    success_msg MEDIUMTEXT NULL,
    request_data MEDIUMTEXT NULL,
    response_data MEDIUMTEXT NULL,
    created_at DATETIME(3) NOT NULL,
    updated_at DATETIME(3) NOT NULL,
    completed_at DATETIME(3) NULL,
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
    UNIQUE KEY uq_pending (backup_target_id, host, pending),
    UNIQUE KEY uq_pending_path (host, pending_path)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
    DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS backup_target_mount_fences (
    backup_target_id VARCHAR(255) NOT NULL,
    host VARCHAR(255) NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (backup_target_id, host)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
    DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
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
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
    DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS dms_ledger_about (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
    DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
];

/// For a table of the Python client, whose ids compare as the server's default has it.
const BYTEWISE: [&str; 2] = [
    "ALTER TABLE backup_target_mount_ledger MODIFY backup_target_id
     VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
    "ALTER TABLE backup_target_mount_ledger MODIFY host
     VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
];
