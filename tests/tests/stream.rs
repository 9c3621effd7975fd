//! The pipeline as a line filter: one line in, one line out, in order; and as users type it.

use dms_tests::Lab;
use serde_json::{Value, json};

/// What one line has to be answered.
enum Wanted {
    /// Refused, in these words.
    Refused(String),
    /// Mounted at this path.
    Mounted(String),
    /// This many jobs are left.
    Left(usize),
}

/// Five hundred lines: jobs come to four targets, and leave again; every fifth line is broken in
/// its own way. No two answers of a kind and target are alike but the mounts.
fn many(lab: &Lab) -> (String, Vec<Wanted>) {
    let mut input = String::new();
    let mut wanted = Vec::new();
    let mut users = [0; 4];
    for number in 0..500_usize {
        let (job, target) = (number % 250, number % 250 % 4);
        let id = format!("t{target}");
        if number % 5 == 4 {
            let action = format!("broken-{number}");
            input
                .push_str(&format!("{}\n", json!({"action": action, "backup_target": {"id": id}})));
            wanted.push(Wanted::Refused(format!("Unknown action: {action}")));
            continue;
        }
        let action = if number < 250 { "mount" } else { "unmount" };
        input.push_str(&format!(
            "{}\n",
            lab.request(action, i32::try_from(job).expect("small"), &id)
        ));
        if number < 250 {
            users[target] += 1;
            wanted.push(Wanted::Mounted(lab.mount_point(&id).display().to_string()));
        } else {
            users[target] -= 1;
            wanted.push(Wanted::Left(users[target]));
        }
    }
    assert_eq!(users, [0; 4], "who comes, leaves");
    (input, wanted)
}

#[track_caller]
fn check(answers: &[Value], wanted: &[Wanted]) {
    assert_eq!(answers.len(), wanted.len(), "not one line out for each line in");
    for (number, (answer, wanted)) in answers.iter().zip(wanted).enumerate() {
        let is_so = match wanted {
            Wanted::Refused(words) => answer["error_msg"] == **words,
            Wanted::Mounted(path) => {
                answer["mount_path"] == **path && answer["status"] == "success"
            }
            Wanted::Left(jobs) => {
                answer["active_mounts_remaining"] == *jobs && answer["unmounted"] == (*jobs == 0)
            }
        };
        assert!(is_so, "line {number}: {answer}");
    }
}

#[test]
fn five_hundred_lines_give_five_hundred_answers_in_order() {
    let lab = Lab::new();
    let (input, wanted) = many(&lab);
    let run = lab.feed("dms-pipeline", &[], &input);
    check(&run.expect(1).lines(), &wanted);
}

#[test]
fn the_three_stages_stream_without_a_lock_around_them() {
    let lab = Lab::new();
    let (input, wanted) = many(&lab);
    let run = lab.feed("sh", &["-c", "dms-ledger plan | dms-mount | dms-ledger commit"], &input);
    check(&run.expect(1).lines(), &wanted);
}

#[test]
fn one_request_is_a_pipeline_too() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let flags = "--job-id 12345 --target-id target-123 --host compute-01";
    let run = lab.shell(&format!(
        "dms-ledger request mount {flags} --target-type s3 --secret-ref {secret} | dms-pipeline"
    ));
    assert_eq!(run.expect(0).line()["status"], "success");
    assert!(lab.mounted("target-123").is_some());
    let run = lab.shell(&format!("dms-ledger request unmount {flags} | dms-pipeline"));
    assert_eq!(run.expect(0).line()["unmounted"], true);
    lab.assert_gone("target-123");
}

#[test]
fn the_unmount_that_the_user_typed_works_and_the_next_command_settles_it() {
    let lab = Lab::new();
    lab.mount(12345, "target-123");
    let run = lab.shell(
        "dms-lock -- dms-ledger unmount --job-id 12345 --target-id target-123 --host compute-01 \
         | dms-mount",
    );
    assert_eq!(run.expect(0).line()["status"], "success");
    lab.assert_gone("target-123");
    // Any command of the ledger will do; this one only looks.
    assert_eq!(lab.users("target-123"), [0; 0]);
    assert_eq!(lab.history("target-123")[0]["status"], "unsettled");
    lab.mount(7, "target-123");
    lab.unmount(7, "target-123");
    let pending = lab.history("target-123").iter().filter(|op| op["status"] == "unsettled").count();
    assert_eq!(pending, 0, "the unknown outcome was never settled");
}

#[test]
fn with_commit_behind_it_the_typed_unmount_is_recorded_at_once() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let run = lab.shell(
        "dms-lock -- dms-ledger unmount --job-id 1 --target-id t1 --host compute-01 \
         | dms-mount | dms-ledger commit",
    );
    let answer = run.expect(0).line();
    assert_eq!((&answer["unmounted"], &answer["plan"]), (&json!(true), &Value::Null));
    assert_eq!(lab.history("t1")[0]["status"], "success");
}

#[test]
fn an_error_of_an_early_stage_goes_through_the_later_ones_untouched() {
    let lab = Lab::new();
    let error = r#"{"error_msg":"no","status":"error","success_msg":null,"error_code":"database"}"#;
    let run = lab.feed("dms-mount", &[], &format!("{error}\n"));
    assert_eq!(run.expect(1).stdout.trim_end(), error, "the bytes are not the same");
    let run = lab.feed("dms-ledger", &["commit"], &format!("{error}\n"));
    assert_eq!(run.expect(1).line()["error_code"], "database");
}

#[test]
fn without_a_plan_dms_mount_acts_on_the_bare_request() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let bare = json!({"action": "mount",
        "backup_target": {"id": "t1", "type": "s3", "secret_ref": secret}});
    let answer = lab.feed("dms-mount", &[], &bare.to_string()).expect(0).line();
    assert_eq!((&answer["physically_mounted"], &answer["plan"]), (&json!(true), &Value::Null));

    let list = lab.feed("dms-mount", &["list"], "").expect(0).lines().remove(0);
    assert_eq!((&list["target"], &list["type"]), (&json!("t1"), &json!("s3")));
    assert_eq!(list["path"], lab.mount_point("t1").display().to_string());
    assert_eq!(list["pid"], lab.daemons("t1")[0].pid);
    assert_eq!(list["secret_ref"], secret);

    let bare = json!({"action": "unmount", "backup_target": {"id": "t1"}}).to_string();
    for words in ["Target unmounted successfully from", "Target not mounted at"] {
        let answer = lab.feed("dms-mount", &[], &bare).expect(0).line();
        assert!(
            answer["success_msg"].as_str().is_some_and(|msg| msg.starts_with(words)),
            "{answer}"
        );
    }
    lab.assert_gone("t1");
}

#[test]
fn a_closed_output_is_a_quiet_end() {
    let lab = Lab::new();
    let lines: String = (0..5000).map(|n| format!("{{\"no\":{n}}}\n")).collect();
    std::fs::write(lab.path("lines"), lines).expect("room for it");
    for stage in ["dms-mount", "dms-ledger plan", "dms-ledger commit", "dms-lock --each -- cat"] {
        let run = lab.shell(&format!("{stage} <lines 2>err | head -n 1 >/dev/null; cat err >&2"));
        assert!(
            !run.stderr.contains("panicked") && !run.stderr.contains("fatal"),
            "{stage}: {run}"
        );
    }
}
