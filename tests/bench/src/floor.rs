//! The floor: one process that does the same SQL in the same transactions and the same look at
//! mountinfo as the pipeline does for a target that is mounted, and nothing else. No process of its
//! own for each stage, no lock, no fence in a file, no I/O on the mount: what the ledger's promises
//! cost, and nobody can do without.

use std::fs;

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, Params, Value as Sql};
use serde_json::{Value, json};

/// A ledger of its own on the server: made by `dms-ledger init`, so that the tables are the same.
pub(crate) struct Floor {
    connection: Conn,
    count: u64,
}

impl Floor {
    /// Connects, as dms-ledger does.
    pub(crate) fn new(url: &str) -> Floor {
        let opts = Opts::from_url(url).expect("a URL of the tests' own");
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).init(vec![
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET SESSION time_zone = '+00:00'",
        ]);
        Floor { connection: Conn::new(opts).expect("the server lets us in"), count: 0 }
    }

    /// What a request line is answered.
    pub(crate) fn answer(&mut self, line: &[u8]) -> Vec<u8> {
        let request: Value = serde_json::from_slice(line).expect("a request");
        let wish = Wish::of(&request);
        self.count += 1;
        let id = format!("floor-{}-{}", std::process::id(), self.count);
        self.plan(&wish, &id, line);
        let is_there = is_mounted(wish.path);
        assert!(is_there, "{} is not mounted", wish.path);
        let answer = json!({"status": "success", "error_msg": null, "mount_path": wish.path,
            "success_msg": "S3 target already mounted", "reused_existing": true});
        let answer = answer.to_string();
        self.commit(&wish, &id, &answer);
        answer.into_bytes()
    }

    fn plan(&mut self, wish: &Wish<'_>, id: &str, line: &[u8]) {
        let request = String::from_utf8_lossy(line).into_owned();
        let path = wish.is_mount.then_some(wish.path);
        let params: Vec<Sql> = vec![
            id.into(),
            wish.target.into(),
            wish.job.into(),
            wish.host.into(),
            wish.action().into(),
            path.into(),
            "s3".into(),
            "file:///secret".into(),
            request.into(),
            path.into(),
            wish.host.into(),
            "boot".into(),
            "/life".into(),
        ];
        self.execute(OPEN, params);
        let now = self.begin();
        self.rows(USERS, (wish.target, wish.host));
        if wish.is_mount {
            self.rows(AT_PATH, (wish.host, wish.path));
            if self.rows(OWN, (wish.job, wish.target, wish.host)) == 0 {
                let times = (now.1.as_str(), now.1.as_str());
                self.execute(ANNOUNCE, (wish.job, wish.target, wish.host, times.0, times.1));
            }
        }
        let counted = self.execute(COUNT_FENCE, (wish.target, wish.host));
        let mut seq = self.connection.last_insert_id();
        if counted == 0 {
            self.execute(NEW_FENCE, (wish.target, wish.host));
            seq = 1;
        }
        let decision = if wish.is_mount { "mount" } else { "release" };
        self.execute(DECIDE, (seq, decision, wish.path, now.1.as_str(), id));
        self.commit_transaction();
    }

    fn commit(&mut self, wish: &Wish<'_>, id: &str, answer: &str) {
        let now = self.begin();
        if !wish.is_mount {
            self.rows(USERS, (wish.target, wish.host));
        }
        self.execute(CLOSE, (answer, now.1.as_str(), now.1.as_str(), now.0, id));
        if wish.is_mount {
            let binding = (wish.path, now.1.as_str(), wish.job, wish.target, wish.host);
            self.execute(BIND, binding);
            self.execute(SETTLE, (now.1.as_str(), wish.target, wish.host));
        } else {
            self.execute(RELEASE, (now.1.as_str(), wish.job, wish.target, wish.host));
        }
        self.commit_transaction();
    }

    /// Says what time it is, too.
    fn begin(&mut self) -> (i64, String) {
        let mut sets = self.connection.query_iter(BEGIN).expect("the server answers");
        let mut now = None;
        while let Some(set) = sets.iter() {
            now = set.flatten().last().or(now);
        }
        mysql::from_row(now.expect("the server knows the time"))
    }

    fn commit_transaction(&mut self) {
        self.connection.query_drop("COMMIT").expect("the server answers");
    }

    fn rows(&mut self, sql: &str, params: impl Into<Params>) -> usize {
        let rows: Vec<mysql::Row> = self.connection.exec(sql, params).expect("it is SQL");
        rows.len()
    }

    fn execute(&mut self, sql: &str, params: impl Into<Params>) -> u64 {
        self.connection.exec_drop(sql, params).expect("it is SQL");
        self.connection.affected_rows()
    }
}

/// What a request says that counts here.
struct Wish<'a> {
    target: &'a str,
    host: &'a str,
    job: i64,
    path: &'a str,
    is_mount: bool,
}

impl Wish<'_> {
    fn of(request: &Value) -> Wish<'_> {
        let target = &request["backup_target"];
        Wish {
            target: target["id"].as_str().unwrap_or_default(),
            host: request["host"].as_str().unwrap_or_default(),
            job: request["job"]["jobid"].as_i64().unwrap_or_default(),
            path: target["filesystem_export_mount_path"].as_str().unwrap_or_default(),
            is_mount: request["action"] == "mount",
        }
    }

    fn action(&self) -> &'static str {
        if self.is_mount { "mount" } else { "unmount" }
    }
}

fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    mounts.lines().rev().any(|line| line.split(' ').nth(4) == Some(path))
}

const BEGIN: &str = "START TRANSACTION; \
                     SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), \
                     LEFT(DATE_FORMAT(NOW(3), '%Y-%m-%d %H:%i:%s.%f'), 23)";
const OPEN: &str = "INSERT INTO backup_target_mount_operations (id, backup_target_id, job_id, \
                    host, action, status, mount_path, type, source, request_data, created_at, \
                    updated_at, pending, pending_path, owner_host, owner_boot, owner_life, \
                    lease_until, opened_ms, waited_ms) VALUES \
                    (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, NOW(3), NOW(3), 1, ?, ?, ?, ?, \
                    CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) + 600000, \
                    CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), 0)";
const USERS: &str = "SELECT jobid, host, mounted, mount_path, type, source, boot, owner \
                     FROM backup_target_mount_ledger WHERE mounted = 1 \
                     AND COALESCE(deleted, 0) = 0 AND backup_target_id = ? AND host = ? \
                     ORDER BY id";
const AT_PATH: &str = "SELECT jobid, backup_target_id FROM backup_target_mount_ledger \
                       WHERE mounted = 1 AND COALESCE(deleted, 0) = 0 AND host = ? \
                       AND mount_path = ? ORDER BY id";
const OWN: &str = "SELECT jobid FROM backup_target_mount_ledger \
                   WHERE jobid = ? AND backup_target_id = ? AND host = ?";
const ANNOUNCE: &str = "INSERT INTO backup_target_mount_ledger (jobid, backup_target_id, host, \
                        mounted, deleted, created_at, updated_at) VALUES (?, ?, ?, 0, 0, ?, ?)";
const COUNT_FENCE: &str = "UPDATE backup_target_mount_fences SET seq = LAST_INSERT_ID(seq + 1) \
                           WHERE backup_target_id = ? AND host = ?";
const NEW_FENCE: &str =
    "INSERT INTO backup_target_mount_fences (backup_target_id, host, seq) VALUES (?, ?, 1)";
const DECIDE: &str = "UPDATE backup_target_mount_operations SET seq = ?, decision = ?, \
                      mount_path = ?, updated_at = ? WHERE id = ? AND pending = 1";
const CLOSE: &str = "UPDATE backup_target_mount_operations SET status = 'success', \
                     pending = NULL, pending_path = NULL, response_data = ?, updated_at = ?, \
                     completed_at = ?, closed_ms = ? WHERE id = ? AND pending = 1";
const BIND: &str = "UPDATE backup_target_mount_ledger SET mounted = 1, deleted = 0, \
                    deleted_at = NULL, mount_path = ?, updated_at = ? \
                    WHERE jobid = ? AND backup_target_id = ? AND host = ?";
const RELEASE: &str = "UPDATE backup_target_mount_ledger SET mounted = 0, updated_at = ? \
                       WHERE jobid = ? AND backup_target_id = ? AND host = ? AND mounted = 1";
const SETTLE: &str = "UPDATE backup_target_mount_operations SET status = 'error', updated_at = ? \
                      WHERE backup_target_id = ? AND host = ? AND status = 'unsettled'";
