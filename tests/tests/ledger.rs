//! dms-ledger: what it prints, what it refuses, and what it does with the same request twice.

use std::fs;
use std::process::Stdio;

use dms_tests::{Lab, NODE, eventually, run};
use serde_json::{Value, json};

#[test]
fn a_new_ledger_can_be_opened_by_many_at_once() {
    let lab = Lab::on_sqlite();
    for _ in 0..100 {
        let start = |number: usize| {
            let args = if number.is_multiple_of(2) { &["init"][..] } else { &["list", "--json"] };
            lab.command("dms-ledger", args).stderr(Stdio::piped()).spawn().expect("it was built")
        };
        // All started before the first is waited for.
        let started: Vec<_> = (0..6).map(start).collect();
        for child in started {
            let output = child.wait_with_output().expect("it is ours");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && output.stdout.is_empty(), "{said}");
        }
        fs::remove_dir_all(lab.path("state")).expect("it was made");
    }
}

#[test]
fn init_can_be_repeated_and_keeps_what_is_there() {
    let lab = Lab::new();
    lab.feed("dms-ledger", &["init"], "").expect(0);
    lab.mount(1, "t1");
    lab.feed("dms-ledger", &["init"], "").expect(0);
    assert_eq!(lab.users("t1"), [1]);
    lab.unmount(1, "t1");
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_alone() {
    let lab = Lab::on_sqlite();
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let sql = "UPDATE dms_ledger_about SET value = '99' WHERE name = 'schema_version';
        DROP INDEX idx_deleted;";
    lab.sql(sql);
    for args in [&["init"][..], &["list"], &["plan"], &["commit"]] {
        let refused = lab.feed("dms-ledger", args, "");
        refused.expect(100);
        assert!(refused.stderr.contains("schema version 99"), "{refused}");
    }
    let schema = lab.shell("sqlite3 state/ledger.db .schema");
    assert!(
        schema.stdout.contains("idx_host") && !schema.stdout.contains("idx_deleted"),
        "{schema}"
    );
}

#[test]
fn a_database_of_somebody_else_is_refused_and_left_alone() {
    let lab = Lab::on_sqlite();
    fs::create_dir(lab.path("state")).expect("room for it");
    lab.shell("sqlite3 state/ledger.db 'CREATE TABLE theirs (x)'").expect(0);
    lab.feed("dms-ledger", &["init"], "").expect(100);
    assert_eq!(lab.shell("sqlite3 state/ledger.db .tables").stdout.trim(), "theirs");
}

#[test]
fn a_ledger_in_memory_is_refused() {
    let lab = Lab::new();
    for url in ["sqlite:///:memory:", "sqlite:///", "sqlite://", "ledger.db"] {
        let mut command = lab.command("dms-ledger", &["list"]);
        run(command.env("DMS_DB_URL", url), b"").expect(100);
    }
}

#[test]
fn what_cannot_be_recorded_is_never_a_success_and_does_not_keep_the_caller() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let acted = lab.shell(&format!(
        "dms-ledger mount --job-id 1 --target-id t1 --host {NODE} --target-type s3 \
         --secret-ref {secret} | dms-mount"
    ));
    let holder = lab.hold_ledger();
    let start = std::time::Instant::now();
    let mut commit = lab.command("dms-ledger", &["commit"]);
    let answer = run(commit.env("DMS_REQUEST_TIMEOUT", "1"), acted.stdout.as_bytes());
    assert_eq!(answer.expect(1).line()["error_code"], "database", "{answer}");
    assert!(start.elapsed().as_secs() < 8, "after {:?}", start.elapsed());
    holder.release();
    assert_eq!(lab.users("t1"), [0; 0]);
    // It can be recorded later: the operation is still its own.
    assert_eq!(lab.feed("dms-ledger", &["commit"], &acted.stdout).line()["status"], "success");
    assert_eq!(lab.users("t1"), [1]);
}

#[test]
fn a_plan_that_nobody_takes_does_not_keep_its_target() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let flags = format!("--target-id t1 --host {NODE} --target-type s3 --secret-ref {secret}");
    // The reader is gone before the plan is written.
    let script = format!("(sleep 0.2; dms-ledger mount --job-id 1 {flags}) | true");
    lab.shell(&script).expect(0);
    eventually("the plan is made", || !lab.history("t1").is_empty());
    eventually("it is withdrawn", || lab.history("t1")[0]["status"] != "pending");
    let on_terminal =
        lab.shell(&format!("script -qec 'dms-ledger mount --job-id 1 {flags}' /dev/null"));
    assert!(on_terminal.expect(100).stdout.contains("terminal"), "{on_terminal}");
    lab.mount(2, "t1");
    assert_eq!(lab.users("t1"), [2]);
}

#[test]
fn an_engine_that_is_not_there_is_refused_without_its_password() {
    let lab = Lab::new();
    let mut command = lab.command("dms-ledger", &["list"]);
    let url = "postgresql://dms:pa55word@db/dms";
    let refused = run(command.env("DMS_DB_URL", url), b"");
    refused.expect(100);
    assert!(refused.stderr.contains("mysql") && refused.stderr.contains("DMS_DB_URL"), "{refused}");
    let mut command = lab.command("dms-ledger", &["list"]);
    let url = "mysql+pymysql://dms:pa55word@127.0.0.1:1/dms";
    let refused = run(command.env("DMS_DB_URL", url), b"");
    assert!(refused.expect(111).stderr.contains("dms at 127.0.0.1:1"), "{refused}");
    assert!(!refused.stderr.contains("pa55word"), "{refused}");
}

#[test]
fn a_ledger_that_cannot_be_written_is_an_error_and_never_success() {
    let lab = Lab::on_sqlite();
    fs::write(lab.path("state"), "a file where the directory should be").expect("room for it");
    let refused = lab.feed("dms-ledger", &["list"], "");
    refused.expect(111);
    assert!(refused.stderr.contains("unable to open ledger"), "{refused}");
    let answer = lab.send(&lab.request("mount", 1, "t1"));
    assert_eq!(answer["status"], "error", "{answer}");
    lab.assert_gone("t1");
}

#[test]
fn status_list_and_history_are_tables_for_people_and_json_for_pipes() {
    let lab = Lab::new();
    lab.mount(12345, "target-123");
    let ids = ["--job-id", "12345", "--target-id", "target-123"];
    let status = lab.feed("dms-ledger", &[&["status"], &ids[..]].concat(), "");
    let text = &status.expect(0).stdout;
    assert!(
        text.starts_with("TARGET") && text.contains("target-123  12345  compute-01  yes"),
        "{text}"
    );
    let row = lab.feed("dms-ledger", &[&["status", "--json"], &ids[..]].concat(), "").line();
    assert_eq!(
        (&row["mounted"], &row["deleted"], &row["host"]),
        (&json!(true), &json!(false), &json!(NODE))
    );
    let created = row["created"].as_str().unwrap_or_default();
    assert!(created.len() == 20 && created.ends_with('Z') && created.contains('T'), "{created}");

    let nobody = lab.feed("dms-ledger", &["status", "--job-id", "9", "--target-id", "t"], "");
    nobody.expect(1);
    assert!(nobody.stderr.contains("no record") && nobody.stdout.is_empty(), "{nobody}");

    for (args, rows) in [
        (&["list", "--json", "--host", NODE][..], 1),
        (&["list", "--json", "--host", "elsewhere"], 0),
        (&["list-mounts", "--json", "--job-id", "12345"], 1),
        (&["list", "--json", "--target-id", "other"], 0),
        (&["history", "--json"], 1),
        (&["history", "--json", "--status", "error"], 0),
        (&["history", "--json", "--job-id", "12345", "--host", NODE, "--limit", "5"], 1),
        (&["history", "--json", "--limit", "0"], 0),
    ] {
        assert_eq!(lab.feed("dms-ledger", args, "").expect(0).lines().len(), rows, "{args:?}");
    }
    lab.unmount(12345, "target-123");
    let actions: Vec<Value> =
        lab.history("target-123").iter().map(|op| op["action"].clone()).collect();
    assert_eq!(actions, [json!("unmount"), json!("mount")], "newest first");
}

#[test]
fn the_journal_tells_the_whole_operation_without_what_it_should_not_keep() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let query = "SELECT request_data, response_data, mount_path, status
                 FROM backup_target_mount_operations";
    let row = lab.sql(query);
    for word in ["user-1", "\"jobid\":1", "physically_mounted", "/mnt/t1", "success"] {
        assert!(row.contains(word), "{word} not in {row}");
    }
    assert!(!row.contains("token"), "{row}");
    lab.unmount(1, "t1");
}

#[test]
fn a_request_is_built_from_the_flags_that_users_know() {
    let lab = Lab::new();
    let args = [
        "request",
        "mount",
        "--job-id",
        "12345",
        "--target-id",
        "target-123",
        "--target-type",
        "nfs",
        "--host",
        "n7",
        "--filesystem-export",
        "192.168.1.100:/export",
        "--nfs-mount-opts",
        "rw,hard",
        "--mount-path",
        "/var/lib/trilio/triliovault-mounts/x",
        "--request-id",
        "req-1",
    ];
    let line = lab.feed("dms-ledger", &args, "").expect(0).line();
    let wanted = json!({"job": {"jobid": 12345}, "host": "n7", "action": "mount", "request_id": "req-1",
        "backup_target": {"id": "target-123", "type": "nfs", "nfs_mount_opts": "rw,hard",
            "filesystem_export": "192.168.1.100:/export",
            "filesystem_export_mount_path": "/var/lib/trilio/triliovault-mounts/x"}});
    assert_eq!(line, wanted);
    let short = ["request", "unmount", "--job-id", "1", "--target-id", "t"];
    assert_eq!(lab.feed("dms-ledger", &short, "").expect(0).line()["host"], NODE);

    for (args, word) in [
        (
            &["request", "mount", "--job-id", "job-789", "--target-id", "t", "--target-type", "s3"]
                [..],
            "jobid",
        ),
        (
            &["request", "mount", "--job-id", "1", "--target-id", "t", "--target-type", "s3"],
            "secret_ref",
        ),
        (&["request", "mount", "--job-id", "1", "--target-id", "t"], "type"),
        (
            &["mount", "--job-id", "1", "--target-id", "a/b", "--target-type", "s3"],
            "backup_target.id",
        ),
        (&["request", "mount", "--target-id", "t"], "--job-id"),
        (&["nonsense"], "nonsense"),
        (&[], "a command is missing"),
        (&["history", "--status", "nonsense"], "unsettled"),
    ] {
        let refused = lab.feed("dms-ledger", args, "");
        refused.expect(100);
        assert!(refused.stderr.contains(word) && refused.stdout.is_empty(), "{args:?}: {refused}");
    }
}

#[test]
fn the_same_request_again_is_answered_again_and_done_once() {
    let lab = Lab::new();
    let mut mount = lab.request("mount", 1, "t1");
    mount["request_id"] = json!("req-1");
    assert_eq!(lab.send(&mount)["physically_mounted"], true);
    let again = lab.send(&mount);
    assert_eq!((&again["status"], &again["reused_existing"]), (&json!("success"), &json!(true)));
    // The second look is an operation of its own: what was recorded first stays.
    assert_eq!((lab.users("t1"), lab.history("t1").len()), (vec![1], 2));

    let mut unmount = lab.request("unmount", 1, "t1");
    unmount["request_id"] = json!("req-2");
    let first = lab.send(&unmount);
    lab.mount(2, "t1");
    assert_eq!(lab.send(&unmount), first, "the second answer is not the first one");
    assert!(lab.mounted("t1").is_some(), "a repeated unmount unmounted under job 2");

    // Job 1 has left: its old mount request must not bring it back.
    let stale = lab.send(&mount);
    assert_eq!(stale["error_code"], "stale", "{stale}");
    assert_eq!(lab.users("t1"), [2]);
    lab.unmount(2, "t1");
}

#[test]
fn an_id_of_another_request_is_refused() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["request_id"] = json!("req-1");
    lab.send(&request);
    for (pointer, value) in [
        ("/job/jobid", json!(2)),
        ("/backup_target/id", json!("t2")),
        ("/action", json!("unmount")),
    ] {
        let mut other = request.clone();
        *other.pointer_mut(pointer).expect("it is there") = value;
        let answer = lab.send(&other);
        assert_eq!(answer["error_code"], "validation", "{pointer}: {answer}");
    }
    assert_eq!((lab.users("t1"), lab.users("t2")), (vec![1], vec![]));
}

#[test]
fn a_recorded_mount_is_not_believed_when_it_is_asked_for_again() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["request_id"] = json!("req-1");
    lab.send(&request);
    lab.shell("umount mnt/t1").expect(0);
    let again = lab.send(&request);
    assert_eq!(again["physically_mounted"], true, "{again}");
    assert!(lab.mounted("t1").is_some());
    lab.unmount(1, "t1");
}

#[test]
fn a_request_that_carries_a_plan_is_refused_by_plan() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let flags =
        format!("--job-id 1 --target-id t1 --host {NODE} --target-type s3 --secret-ref {secret}");
    let twice = lab.shell(&format!("dms-ledger mount {flags} | dms-ledger plan"));
    assert_eq!(twice.expect(1).line()["error_code"], "validation");
}

#[test]
fn fields_that_nobody_knows_travel_with_the_request() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["x_extension"] = json!({"a": [1, "two"]});
    request["backup_target"]["y"] = json!(null);
    let planned = lab.feed("dms-ledger", &["plan"], &request.to_string()).expect(0).line();
    assert_eq!(planned["x_extension"], request["x_extension"]);
    assert_eq!(planned["keystone_token"], request["keystone_token"]);
    assert!(planned["backup_target"].as_object().is_some_and(|target| target.contains_key("y")));
    assert_eq!(planned["plan"]["seq"], 1);
    assert!(!planned["plan"].to_string().contains("token"));
}
