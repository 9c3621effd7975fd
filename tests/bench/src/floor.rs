//! The floor: one process that does the same SQL in the same transactions and the same look at
//! mountinfo as the pipeline does for a target that is mounted, and nothing else. No process of its
//! own for each stage, no lock, no fence in a file, no I/O on the mount: what the ledger's promises
//! cost, and nobody can do without.

use std::fs;

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, Value as Sql};
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
            "SET SESSION time_zone = '+00:00', optimizer_switch = 'index_merge=off'",
        ]);
        Floor { connection: Conn::new(opts).expect("the server lets us in"), count: 0 }
    }

    /// What a request line is answered.
    pub(crate) fn answer(&mut self, line: &[u8]) -> Vec<u8> {
        let request: Value = serde_json::from_slice(line).expect("a request");
        let wish = Wish::of(&request);
        self.count += 1;
        let id = format!("floor-{}-{}", std::process::id(), self.count);
        self.insist(|floor| floor.plan(&wish, &id, line));
        let is_there = is_mounted(wish.path);
        assert!(is_there, "{} is not mounted", wish.path);
        let answer = json!({"status": "success", "error_msg": null, "mount_path": wish.path,
            "success_msg": "S3 target already mounted", "reused_existing": true});
        let answer = answer.to_string();
        self.insist(|floor| floor.commit(&wish, &id, &answer));
        answer.into_bytes()
    }

    /// Does it again after a deadlock, which the server rolls back, as dms-ledger does.
    fn insist(&mut self, work: impl Fn(&mut Floor) -> mysql::Result<()>) {
        const DEADLOCK: u16 = 1213;
        loop {
            match work(self) {
                Err(mysql::Error::MySqlError(why)) if why.code == DEADLOCK => {}
                done => return done.expect("the server answers"),
            }
        }
    }

    fn plan(&mut self, wish: &Wish<'_>, id: &str, line: &[u8]) -> mysql::Result<()> {
        let request = String::from_utf8_lossy(line).into_owned();
        let path = wish.is_mount.then_some(wish.path);
        let decision = if wish.is_mount { "mount" } else { "release" };
        let open: Vec<Sql> = vec![
            id.into(),
            wish.target.into(),
            wish.job.into(),
            wish.host.into(),
            wish.action().into(),
            wish.path.into(),
            "s3".into(),
            "file:///secret".into(),
            request.into(),
            path.into(),
            wish.host.into(),
            "boot".into(),
            "/life".into(),
            decision.into(),
            wish.target.into(),
            wish.host.into(),
        ];
        let mut script = vec![
            BEGIN.to_owned(),
            text(COUNT_FENCE, &wish.place()),
            text(OPEN, &open),
            text(USERS, &wish.place()),
        ];
        if wish.is_mount {
            script.push(text(OWN, &wish.key()));
        }
        let found = self.send(&script)?;
        if wish.is_mount && found.last() == Some(&0) {
            self.send(&[text(ANNOUNCE, &wish.key())])?;
        }
        self.send(&[COMMIT.to_owned()]).map(|_| ())
    }

    fn commit(&mut self, wish: &Wish<'_>, id: &str, answer: &str) -> mysql::Result<()> {
        let mut begin = vec![BEGIN.to_owned()];
        let close = text(CLOSE, &[answer.into(), id.into()]);
        if wish.is_mount {
            let bind = [vec![wish.path.into()], wish.key().to_vec()].concat();
            begin.extend([close, text(BIND, &bind), text(SETTLE, &wish.place())]);
        } else {
            begin.extend([close, text(RELEASE, &wish.key())]);
        }
        self.send(&begin)?;
        self.send(&[COMMIT.to_owned()]).map(|_| ())
    }

    /// Sends these at once, and says how many rows each has found.
    fn send(&mut self, script: &[String]) -> mysql::Result<Vec<usize>> {
        let mut sets = self.connection.query_iter(script.join("; "))?;
        let mut found = Vec::new();
        while let Some(set) = sets.iter() {
            let rows: mysql::Result<Vec<mysql::Row>> = set.collect();
            found.push(rows?.len());
        }
        Ok(found)
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

    fn place(&self) -> [Sql; 2] {
        [self.target.into(), self.host.into()]
    }

    fn key(&self) -> [Sql; 3] {
        [self.job.into(), self.target.into(), self.host.into()]
    }

    fn action(&self) -> &'static str {
        if self.is_mount { "mount" } else { "unmount" }
    }
}

/// The statement with its values in it.
fn text(sql: &str, params: &[Sql]) -> String {
    let mut parts = sql.split('?');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (part, value) in parts.zip(params) {
        text.push_str(&value.as_sql(false));
        text.push_str(part);
    }
    text
}

fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    mounts.lines().rev().any(|line| line.split(' ').nth(4) == Some(path))
}

const BEGIN: &str = "START TRANSACTION";
const COMMIT: &str = "COMMIT";
const COUNT_FENCE: &str = "INSERT INTO backup_target_mount_fences (backup_target_id, host, seq) \
                           VALUES (?, ?, LAST_INSERT_ID(1)) \
                           ON DUPLICATE KEY UPDATE seq = LAST_INSERT_ID(seq + 1)";
const OPEN: &str = "INSERT INTO backup_target_mount_operations (id, backup_target_id, job_id, \
                    host, action, status, mount_path, type, source, request_data, created_at, \
                    updated_at, pending, pending_path, owner_host, owner_boot, owner_life, \
                    lease_until, opened_ms, waited_ms, decision, seq) VALUES \
                    (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, NOW(3), NOW(3), 1, ?, ?, ?, ?, \
                    CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) + 600000, \
                    CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), 0, ?, \
                    (SELECT seq FROM backup_target_mount_fences \
                    WHERE backup_target_id = ? AND host = ?))";
const USERS: &str = "SELECT jobid, host, mounted, mount_path, type, source, boot, owner \
                     FROM backup_target_mount_ledger WHERE mounted = 1 \
                     AND COALESCE(deleted, 0) = 0 AND backup_target_id = ? AND host = ? \
                     ORDER BY id LIMIT 16";
const OWN: &str = "SELECT 1 FROM backup_target_mount_ledger \
                   WHERE jobid = ? AND backup_target_id = ? AND host = ?";
const ANNOUNCE: &str = "INSERT INTO backup_target_mount_ledger (jobid, backup_target_id, host, \
                        mounted, deleted, created_at, updated_at) \
                        VALUES (?, ?, ?, 0, 0, NOW(3), NOW(3))";
const CLOSE: &str = "UPDATE backup_target_mount_operations SET status = 'success', \
                     pending = NULL, pending_path = NULL, response_data = ?, \
                     updated_at = NOW(3), completed_at = NOW(3), \
                     closed_ms = CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) \
                     WHERE id = ? AND pending = 1";
const BIND: &str = "UPDATE backup_target_mount_ledger SET mounted = 1, deleted = 0, \
                    deleted_at = NULL, mount_path = ?, updated_at = NOW(3) \
                    WHERE jobid = ? AND backup_target_id = ? AND host = ?";
const RELEASE: &str = "UPDATE backup_target_mount_ledger SET mounted = 0, updated_at = NOW(3) \
                       WHERE jobid = ? AND backup_target_id = ? AND host = ? AND mounted = 1";
const SETTLE: &str = "UPDATE backup_target_mount_operations SET status = 'error', \
                      updated_at = NOW(3) \
                      WHERE backup_target_id = ? AND host = ? AND status = 'unsettled'";
