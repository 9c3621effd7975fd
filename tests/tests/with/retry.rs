//! Errors that pass: tried again, as the same request where nobody knows how it went.

use std::fs;

use dms_tests::{Lab, Run, run};
use serde_json::Value;

use crate::file;

/// Runs a command with a pipeline that answers the first requests with these errors, `action code`,
/// done or not, and is the node's own for the others. Each line that it is given is noted.
fn with_errors(lab: &Lab, errors: &str, bound: &str) -> (Run, Vec<Value>) {
    let (plan, lines) = (lab.fresh_path("errors"), lab.fresh_path("lines"));
    fs::write(&plan, errors).expect("room for it");
    let script = format!(
        r#"read -r line; printf '%s\n' "$line" >>{lines}
        read -r action code act <{plan}
        case $line in
            *'"action":"'"$action"'"'*)
                sed -i 1d {plan}
                [ -z "$act" ] || printf '%s\n' "$line" | dms-pipeline >&2
                [ "$code" = none ] || echo '{{"status":"error","error_msg":"by the test","error_code":"'$code'"}}' ;;
            *) printf '%s\n' "$line" | dms-pipeline ;;
        esac"#,
        lines = lines.display(),
        plan = plan.display()
    );
    let file = file(lab, &[lab.request("mount", 1, "t1")]);
    let mut command = lab.command("dms-with", &["--strict", &file, "--", "echo", "run"]);
    let ran = run(command.env("DMS_PIPELINE", script).env("DMS_REQUEST_TIMEOUT", bound), b"");
    let lines = fs::read_to_string(lines).expect("it was asked");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("a request")).collect();
    (ran, lines)
}

#[test]
fn an_unknown_outcome_is_asked_about_with_the_same_id_and_a_known_one_with_another() {
    let lab = Lab::new();
    for (errors, same) in [
        ("mount timeout\n", true),
        ("mount internal acted\n", true),
        ("mount database acted\n", true),
        ("mount none acted\n", true),
        ("mount busy\n", false),
        ("mount lock_timeout\n", false),
        ("unmount broker acted\n", true),
        ("unmount unmount\n", false),
    ] {
        let (ran, lines) = with_errors(&lab, errors, "60");
        assert_eq!(ran.expect(0).stdout, "run\n", "{errors}");
        let action = errors.split(' ').next();
        let ids: Vec<&Value> = (lines.iter())
            .filter(|line| line["action"].as_str() == action)
            .map(|line| &line["request_id"])
            .collect();
        assert_eq!((ids.len(), ids[0] == ids[1]), (2, same), "{errors}: {lines:?}");
        assert!(ran.stderr.contains("next attempt in"), "{ran}");
        lab.assert_gone("t1");
        assert_eq!(lab.users("t1"), [0; 0], "{errors}");
    }
}

#[test]
fn what_stays_unknown_is_undone_and_what_is_final_is_not_tried_again() {
    let lab = Lab::new();
    let (ran, lines) = with_errors(&lab, &"mount timeout acted\n".repeat(9), "4");
    assert_eq!(ran.expect(111).stdout, "");
    assert!(lines.iter().filter(|line| line["action"] == "mount").count() >= 2, "{lines:?}");
    assert_eq!(lines.last().map(|line| &line["action"]), Some(&"unmount".into()));
    lab.assert_gone("t1");
    assert_eq!(lab.users("t1"), [0; 0]);

    for code in ["mount", "credentials", "validation"] {
        let (ran, lines) = with_errors(&lab, &format!("mount {code}\n"), "60");
        assert_eq!(ran.expect(1).stdout, "");
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for() {
    let lab = Lab::new();
    let holder = lab.hold(&["target.t1"]);
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let mut command = lab.command("dms-with", &[&file, "--", "echo", "run"]);
    let gives_up =
        run(command.env("DMS_LOCK_TIMEOUT", "0.1").env("DMS_REQUEST_TIMEOUT", "0.5"), b"");
    assert_eq!(gives_up.expect(111).stdout, "");
    let waits = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut command = lab.command("dms-with", &[&file, "--", "echo", "run"]);
            run(command.env("DMS_LOCK_TIMEOUT", "0.1"), b"")
        });
        dms_tests::eventually("it is tried again", || !lab.processes().is_empty());
        holder.release();
        waiting.join().expect("it does not panic")
    });
    assert_eq!(waits.expect(0).stdout, "run\n");
    lab.assert_gone("t1");
}
