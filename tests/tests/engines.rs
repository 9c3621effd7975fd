//! What a ledger on a server has to bear: tables that others have made, keys of other tables, a
//! server that stops, dies and comes back.

use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Database, Filter, Lab, NODE, run};
use serde_json::{Value, json};

/// The table as the Python client makes it on a server: a composite key, no id, and ids that
/// compare as the server's default has it.
const ORIGINAL: &str = "CREATE TABLE backup_target_mount_ledger (
    created_at DATETIME NULL, updated_at DATETIME NULL, deleted_at DATETIME NULL,
    deleted BOOLEAN, version VARCHAR(255), jobid INTEGER NOT NULL,
    backup_target_id VARCHAR(255) NOT NULL, host VARCHAR(255) NOT NULL, mounted BOOLEAN,
    PRIMARY KEY (jobid, backup_target_id, host));";

/// The client's own INSERT: updated_at is NULL, deleted_at is set on a live row.
fn insert(job: i32, target: &str, mounted: i32) -> String {
    format!(
        "INSERT INTO backup_target_mount_ledger (created_at, updated_at, deleted_at, deleted, \
         version, jobid, backup_target_id, host, mounted) VALUES ('2026-01-02 03:04:05', NULL, \
         '2026-01-02 03:04:05', 0, NULL, {job}, '{target}', '{NODE}', {mounted});"
    )
}

/// A database on a server of its own, before any ledger is in it.
struct Bare {
    server: Database,
    url: String,
    lab: Lab,
}

impl Bare {
    fn new() -> Bare {
        let server = Database::start();
        let url = server.create("bare");
        Bare { server, url, lab: Lab::on_sqlite() }
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        self.server.sql("dms_bare", sql)
    }

    fn ledger(&self, args: &[&str]) -> dms_tests::Run {
        let mut command = self.lab.command("dms-ledger", args);
        run(command.env("DMS_DB_URL", &self.url), b"")
    }

    fn ask(&self, request: &Value) -> Value {
        let mut pipeline = self.lab.pipeline_command();
        let line = format!("{request}\n");
        run(pipeline.env("DMS_DB_URL", &self.url), line.as_bytes()).line()
    }
}

#[test]
fn a_table_of_the_python_client_is_adopted_with_every_row_and_stays_the_clients() {
    let bare = Bare::new();
    bare.sql(ORIGINAL);
    bare.sql(&[insert(1, "t1", 1), insert(2, "t1", 0), insert(3, "t9", 1)].concat());
    // Its columns let a live row say nothing of being deleted.
    bare.sql("UPDATE backup_target_mount_ledger SET deleted = NULL WHERE jobid = 1");
    bare.ledger(&["init"]).expect(0);
    bare.ledger(&["init"]).expect(0);
    bare.ledger(&["check"]).expect(0);
    assert_eq!(bare.sql("SELECT COUNT(*) FROM backup_target_mount_ledger").trim(), "3");
    // Its rows are read...
    let list = bare.ledger(&["list", "--json"]).expect(0).lines();
    let jobs: Vec<&Value> = list.iter().map(|row| &row["job"]).collect();
    assert_eq!(jobs, [&json!(1), &json!(3)]);
    // ...and counted.
    let left = bare.ask(&bare.lab.request("unmount", 3, "t9"));
    assert_eq!(left["active_mounts_remaining"], 0, "{left}");
    // It goes on writing with the statements that it has, and two targets are two.
    bare.sql(&[insert(4, "T1", 1), insert(4, "t1", 1)].concat());
    bare.sql("UPDATE backup_target_mount_ledger SET mounted = 0 WHERE jobid = 1 AND host = 'compute-01' AND backup_target_id = 't1'");
    let list = bare.ledger(&["list", "--json", "--target-id", "t1"]).expect(0).lines();
    assert_eq!(list.len(), 1, "T1 was taken for t1: {list:?}");
}

#[test]
fn a_table_that_is_no_ledger_is_refused_by_name() {
    let bare = Bare::new();
    bare.sql("CREATE TABLE backup_target_mount_ledger (id VARCHAR(36) PRIMARY KEY, job_id VARCHAR(36), action VARCHAR(20), status VARCHAR(20))");
    let refused = bare.ledger(&["init"]);
    assert!(refused.expect(100).stderr.contains("action and status"), "{refused}");
    bare.sql("DROP TABLE backup_target_mount_ledger");
    let no_key = ORIGINAL.replace(",\n    PRIMARY KEY (jobid, backup_target_id, host)", "");
    bare.sql(&[&no_key, &insert(7, "t1", 1), &insert(7, "t1", 0)].map(|s| s.as_str()).concat());
    let refused = bare.ledger(&["init"]);
    assert!(refused.expect(100).stderr.contains("job 7, target t1"), "{refused}");
    assert_eq!(bare.sql("SELECT COUNT(*) FROM backup_target_mount_ledger").trim(), "2");
}

#[test]
fn a_ledger_on_a_server_is_made_by_init_alone() {
    let bare = Bare::new();
    let refused = bare.ledger(&["list"]);
    assert!(refused.expect(100).stderr.contains("dms-ledger init"), "{refused}");
    assert_eq!(bare.sql("SHOW TABLES"), "");
    // By hand, as a DBA would.
    let statements = bare.ledger(&["init", "--print"]).expect(0).stdout.clone();
    bare.sql(&statements);
    bare.ledger(&["check"]).expect(0);
    let both: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bare.ledger(&["init"]).code)).collect();
        runs.into_iter().map(|run| run.join().expect("it ends")).collect()
    });
    assert_eq!(both, [0; 4]);
    bare.ledger(&["check"]).expect(0);
    // The key that two pending mounts of one path meet in is a real one.
    let made = bare.sql("SHOW CREATE TABLE backup_target_mount_operations");
    assert!(made.contains("uq_pending_path") && !made.contains("USING HASH"), "{made}");
    bare.sql("DROP INDEX uq_pending_path ON backup_target_mount_operations");
    let lacks = bare.ledger(&["check"]);
    assert!(lacks.expect(100).stderr.contains("uq_pending_path"), "{lacks}");
    bare.sql("CREATE UNIQUE INDEX uq_pending_path ON backup_target_mount_operations (host, pending_path);
        DROP INDEX idx_host_mounted ON backup_target_mount_ledger");
    let lacks = bare.ledger(&["check"]);
    assert!(lacks.expect(100).stderr.contains("idx_host_mounted"), "{lacks}");
    bare.ledger(&["init"]).expect(0);
    bare.ledger(&["check"]).expect(0);
}

#[test]
fn a_job_or_target_that_the_database_does_not_know_is_told_before_anything_is_mounted() {
    let bare = Bare::new();
    bare.sql(
        "CREATE TABLE job (jobid INT PRIMARY KEY); INSERT INTO job VALUES (1);
         CREATE TABLE backup_targets (id VARCHAR(255) PRIMARY KEY); INSERT INTO backup_targets VALUES ('t1');",
    );
    bare.sql(&ORIGINAL.replace(
        "PRIMARY KEY (jobid",
        "FOREIGN KEY (jobid) REFERENCES job (jobid), FOREIGN KEY (backup_target_id) \
         REFERENCES backup_targets (id), PRIMARY KEY (jobid",
    ));
    bare.ledger(&["init"]).expect(0);
    let answer = bare.ask(&bare.lab.request("mount", 2, "t1"));
    assert_eq!(answer["error_msg"], "Job 2 not found. Please ensure job exists before mounting.");
    let answer = bare.ask(&bare.lab.request("mount", 1, "t2"));
    assert_eq!(answer["error_msg"], "Backup target t2 not found.");
    assert!(bare.lab.mounted("t1").is_none() && bare.lab.mounted("t2").is_none());
    assert_eq!(bare.ask(&bare.lab.request("mount", 1, "t1"))["status"], "success");
    assert_eq!(bare.ask(&bare.lab.request("unmount", 1, "t1"))["unmounted"], true);
}

#[test]
fn what_a_request_says_is_in_the_journal_as_it_was_said() {
    let bare = Bare::new();
    bare.ledger(&["init"]).expect(0);
    let said = r#"O'Brien \' \\ "?" ? -- ; DROP TABLE backup_target_mount_ledger; %s \0 \n é 💾 "#;
    let mut pipeline = bare.lab.pipeline_command();
    let mut pipeline = Filter::start(pipeline.env("DMS_DB_URL", &bare.url));
    // The first statement of a kind goes with its values in it, the others are prepared.
    for job in 1..=3 {
        let mut request = bare.lab.request("unmount", job, "t1");
        request["context"] = json!({"user_id": format!("{said}\0{job}")});
        assert_eq!(pipeline.ask(&request)["error_code"], "no_active_mount");
        let hex = bare.sql(&format!(
            "SELECT HEX(request_data) FROM backup_target_mount_operations WHERE job_id = {job}"
        ));
        let bytes = hex.trim().as_bytes().chunks(2);
        let bytes =
            bytes.map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("digits"), 16));
        let bytes: Vec<u8> = bytes.map(|byte| byte.expect("two digits")).collect();
        let kept: Value = serde_json::from_slice(&bytes).expect("it was JSON");
        assert_eq!(kept["context"], request["context"]);
    }
    pipeline.end();
}

#[test]
fn a_server_that_stops_dies_and_hangs_under_load_loses_nothing() {
    let mut bare = Bare::new();
    bare.ledger(&["init"]).expect(0);
    let end = Instant::now() + Duration::from_secs(14);
    let (lab, url) = (&bare.lab, &bare.url);
    let server = &mut bare.server;
    let (done, errors) = thread::scope(|scope| {
        let callers: Vec<_> =
            (0..4).map(|number| scope.spawn(move || jobs(lab, url, number, end))).collect();
        for round in 0..3 {
            thread::sleep(Duration::from_secs(2));
            match round {
                0 => server.restart(),
                1 => {
                    server.kill();
                    thread::sleep(Duration::from_millis(500));
                    server.start_again();
                }
                _ => {
                    server.suspend();
                    thread::sleep(Duration::from_millis(1500));
                    server.resume();
                }
            }
        }
        let counts: Vec<_> = callers.into_iter().map(|c| c.join().expect("no violation")).collect();
        counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    });
    assert!(done > 20 && errors > 0, "{done} holds, {errors} errors");
    // Whoever came last has left: ledger and kernel agree.
    for target in ["t0", "t1"] {
        assert_eq!(bare.ask(&bare.lab.request("mount", 1, target))["status"], "success");
        assert_eq!(bare.ask(&bare.lab.request("unmount", 1, target))["unmounted"], true);
        bare.lab.assert_gone(target);
    }
    assert_eq!(bare.ledger(&["list", "--json"]).expect(0).stdout, "");
}

/// Mounts, writes and unmounts until the end; how often that went well, and how often an error
/// was answered.
fn jobs(lab: &Lab, url: &str, number: i32, end: Instant) -> (u32, u32) {
    let mut pipeline = lab.pipeline_command();
    pipeline.env("DMS_DB_URL", url).env("DMS_REQUEST_TIMEOUT", "10");
    let mut pipeline = Filter::start(&mut pipeline);
    let (mut done, mut errors) = (0, 0);
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let (job, target) = (number * 10_000 + round + 10, format!("t{}", (number + round) % 2));
        let mounted = pipeline.ask(&lab.request("mount", job, &target));
        if mounted["status"] == "success" {
            let name = format!("{job}");
            std::fs::write(lab.mount_point(&target).join(&name), &name).expect("it is mounted");
            let object = std::fs::read_to_string(lab.object(&name));
            assert_eq!(object.ok().as_deref(), Some(&*name), "job {job} wrote beside {target}");
            done += 1;
        } else {
            check_temporary(&mounted);
            errors += 1;
        }
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = pipeline.ask(&lab.request("unmount", job, &target));
            if answer["status"] == "success" || answer["error_code"] == "no_active_mount" {
                break;
            }
            check_temporary(&answer);
            errors += 1;
            assert!(Instant::now() < until, "it is never released: {answer}");
            thread::sleep(Duration::from_millis(100));
        }
    }
    pipeline.end();
    (done, errors)
}

#[track_caller]
fn check_temporary(answer: &Value) {
    let codes = ["database", "stale", "lock_timeout", "timeout", "internal"];
    // On a machine with much to do, a daemon may take long to end.
    let text = answer["error_msg"].as_str().unwrap_or_default();
    let is_flushing = answer["error_code"] == "busy" && text.contains("still flushing");
    assert!(is_flushing || codes.iter().any(|code| answer["error_code"] == *code), "{answer}");
}

#[test]
fn a_server_is_known_by_its_certificate() {
    let server = Database::with_tls();
    let url = server.create("tls");
    let lab = Lab::on_sqlite();
    let ledger = |query: &str, args: &[&str]| {
        let mut command = lab.command("dms-ledger", args);
        run(command.env("DMS_DB_URL", format!("{url}?{query}")), b"")
    };
    let ca = format!("ssl_ca={}", server.tls_file("ca.pem").display());
    ledger(&ca, &["init"]).expect(0);
    ledger(&format!("{ca}&charset=utf8mb4"), &["check"]).expect(0);
    let stranger = format!("ssl_ca={}", server.tls_file("stranger.pem").display());
    for bad in [stranger.as_str(), "ssl-mode=REQUIRED"] {
        let refused = ledger(bad, &["check"]);
        assert!(refused.expect(111).stderr.contains("certificate"), "{refused}");
        assert!(
            !refused.stderr.contains("p@ss") && !refused.stderr.contains("p%40ss"),
            "{refused}"
        );
    }
}
