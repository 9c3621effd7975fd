//! A ledger with a past: as many rows as years of backups leave, made in one go.
//!
//! One target and one host are in use far more than the others. What is in use now, and what is
//! unfinished, is the same however long the past is; so is every answer that is asked for.

use std::process::Command;

use crate::lab::Lab;

/// Rows that are made in one statement: the client has a minute for each.
const BATCH: u32 = 100_000;

/// How many bindings are active, of the newest rows.
const ACTIVE: u32 = 200;

/// The target that has an eighth of all rows.
pub const BUSY_TARGET: &str = "busy";

/// The job that was repeated now and then.
pub const BUSY_JOB: i32 = 7;

/// The words in which the engines differ.
struct Words {
    /// From this number on down to this one.
    numbers: fn(u32, u32) -> String,
    /// So many minutes ago.
    ago: fn(&str) -> String,
    before: &'static str,
    after: &'static str,
}

const SQLITE: Words = Words {
    numbers: |first, last| {
        format!(
            "(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n - 1 FROM s WHERE n > {last}) \
             SELECT n FROM s)"
        )
    },
    ago: |minutes| {
        format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ({minutes}) || ' minutes')")
    },
    before: "PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;",
    after: "PRAGMA wal_checkpoint(TRUNCATE);",
};

const MARIADB: Words = Words {
    numbers: |first, last| format!("(SELECT seq AS n FROM seq_{first}_to_{last}) AS s"),
    ago: |minutes| format!("(UTC_TIMESTAMP(3) - INTERVAL ({minutes}) MINUTE)"),
    before: "SET sql_mode = 'PIPES_AS_CONCAT';",
    // A server does it by itself, some time later.
    after: "ANALYZE TABLE backup_target_mount_ledger, backup_target_mount_operations;",
};

/// Fills both tables of the lab's ledger with so many rows each.
#[track_caller]
pub fn fill(lab: &Lab, rows: u32) {
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let words = if lab.is_on_server() { MARIADB } else { SQLITE };
    // The oldest first, as they came.
    for last in (1..=rows).step_by(BATCH as usize).collect::<Vec<_>>().into_iter().rev() {
        let first = rows.min(last + BATCH - 1);
        lab.sql(&[words.before, &bindings(lab, &words, first, last)].concat());
        lab.sql(&[words.before, &operations(lab, &words, first, last, rows)].concat());
    }
    lab.sql(words.after);
}

/// The node's pipeline with an act stage that says yes to everything: what it takes, the ledger
/// takes.
pub fn ledger_alone(lab: &Lab) -> Command {
    let yes = r#"sed -u 's/.*"plan":\({[^}]*}\).*/{"status":"success","plan":\1}/'"#;
    let filter = format!("dms-ledger plan | {yes} | dms-ledger commit");
    lab.command("dms-lock", &["--each", "--", "sh", "-c", &filter])
}

/// Each of a job of its own; the first ones are in use, and half of those have been for long. They
/// are of this boot: it may be younger than they say they are.
fn bindings(lab: &Lab, words: &Words, first: u32, last: u32) -> String {
    let (target, host) = (target("n"), host(lab, "n"));
    let updated = (words.ago)(&format!("CASE WHEN n > {ACTIVE} / 2 THEN n + 10000 ELSE n END"));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is there");
    format!(
        "INSERT INTO backup_target_mount_ledger (created_at, updated_at, deleted, jobid, \
         backup_target_id, host, mounted, mount_path, type, source, boot) \
         SELECT {updated}, {updated}, 0, 1000 + n, {target}, {host}, \
         CASE WHEN n <= {ACTIVE} THEN 1 ELSE 0 END, '{}/' || {target}, 's3', '{}', '{}' FROM {};",
        lab.path("mnt").display(),
        lab.request("mount", 1, "x")["backup_target"]["secret_ref"].as_str().unwrap_or_default(),
        boot.trim(),
        (words.numbers)(first, last),
    )
}

/// One a minute, the first one just now; some failed, and the last of a few is not known or open.
fn operations(lab: &Lab, words: &Words, first: u32, last: u32, rows: u32) -> String {
    let (target, host, then) = (target("n"), host(lab, "n"), (words.ago)("n"));
    let text = format!("{:0<300}", r#"{"job":{"jobid":1000},"action":"mount","padding":""#);
    format!(
        "INSERT INTO backup_target_mount_operations (id, backup_target_id, job_id, host, action, \
         status, mount_path, success_msg, request_data, response_data, created_at, updated_at, \
         completed_at, decision, type, seq, owner_host, owner_boot, owner_life, lease_until, pending) \
         SELECT 'operation-' || n, {target}, CASE WHEN n <= 125 THEN {BUSY_JOB} ELSE 1000 + n END, \
         {host}, CASE WHEN n % 2 = 0 THEN 'mount' ELSE 'unmount' END, \
         CASE WHEN n IN (11, 13) THEN 'pending' WHEN n IN (17, 19) THEN 'unsettled' \
         WHEN n % 50 = 1 THEN 'error' ELSE 'success' END, '/mnt/' || {target}, 'Done', '{text}', \
         '{text}', {then}, {then}, {then}, 'mount', 's3', {rows} + 1 - n, 'elsewhere', 'boot', \
         '/run/life', 9999999999999, CASE WHEN n IN (11, 13) THEN 1 END FROM {};",
        (words.numbers)(first, last),
    )
}

fn target(n: &str) -> String {
    format!("(CASE WHEN {n} % 8 = 0 THEN '{BUSY_TARGET}' ELSE 'target-' || ({n} % 49) END)")
}

fn host(lab: &Lab, n: &str) -> String {
    format!("(CASE WHEN {n} % 5 = 0 THEN '{}' ELSE 'host-' || ({n} % 31) END)", lab.node)
}
