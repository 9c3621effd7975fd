//! What is refused: one clear line, nothing touched, and the stream goes on.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dms_tests::{Lab, run};
use serde_json::{Value, json};

/// The good request with one thing changed.
fn changed(lab: &Lab, pointer: &str, value: Value) -> String {
    let mut request = lab.request("mount", 1, "t1");
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    request.pointer_mut(parent).expect("it is there")[name] = value;
    request.to_string()
}

/// Malformed or forbidden lines, and a word that the answer has to say.
fn bad_lines(lab: &Lab) -> Vec<(String, &'static str)> {
    let base = lab.path("mnt").display().to_string();
    let path = "/backup_target/filesystem_export_mount_path";
    let mut lines = vec![
        (String::new(), "JSON"),
        ("not json".into(), "JSON"),
        ("{\"a\":".into(), "JSON"),
        ("{}{}".into(), "JSON"),
        ("null".into(), "not a JSON object"),
        ("[1,2]".into(), "not a JSON object"),
        ("\"text\"".into(), "not a JSON object"),
        ("{}".into(), "backup_target"),
    ];
    for (pointer, value, word) in [
        ("/action", json!("remount"), "Unknown action"),
        ("/action", json!(7), "action"),
        ("/action", Value::Null, "action"),
        ("/backup_target", Value::Null, "backup_target"),
        ("/backup_target", json!("t1"), "backup_target"),
        ("/backup_target/id", Value::Null, "backup_target.id"),
        ("/backup_target/id", json!(""), "backup_target.id"),
        ("/backup_target/id", json!(5), "backup_target.id"),
        ("/backup_target/id", json!("a/b"), "backup_target.id"),
        ("/backup_target/id", json!(".."), "backup_target.id"),
        ("/backup_target/id", json!("../../etc/x"), "backup_target.id"),
        ("/backup_target/id", json!("a\u{0}b"), "backup_target.id"),
        ("/backup_target/id", json!("x".repeat(300)), "backup_target.id"),
        ("/backup_target/type", json!("cifs"), "Unsupported target type"),
        ("/backup_target/type", Value::Null, "backup_target.type"),
        ("/backup_target/secret_ref", Value::Null, "backup_target.secret_ref"),
        ("/backup_target/secret_ref", json!(["x"]), "backup_target.secret_ref"),
        ("/backup_target/deleted", json!(true), "deleted"),
        ("/backup_target/deleted", json!("no"), "backup_target.deleted"),
        ("/backup_target/status", json!("unavailable"), "not available"),
        ("/backup_target/status", json!(1), "backup_target.status"),
        (path, json!("/etc/dms-test"), "not below"),
        (path, json!(base), "not below"),
        (path, json!(format!("{base}/../x")), ".."),
        (path, json!("relative"), "absolute"),
        (path, json!(""), "mount_path"),
        (path, json!(format!("{base}/link/x")), "no directory"),
        (path, json!(format!("{base}/link")), "no directory"),
        (path, json!(format!("{base}/{}", "x".repeat(600))), "mount_path"),
        ("/host", json!("another-node"), "another-node"),
        ("/host", json!(7), "host"),
        ("/keystone_token", json!({"a": 1}), "keystone_token"),
        ("/context", json!(1), "context"),
        ("/job", json!("x"), "job"),
        ("/plan", json!({"operation": "x"}), "plan"),
    ] {
        lines.push((changed(lab, pointer, value), word));
    }
    lines
}

/// Those that only matter where there is a ledger.
fn bad_jobs(lab: &Lab) -> Vec<(String, &'static str)> {
    let jobid = |value: Value| changed(lab, "/job/jobid", value);
    let mut differ = lab.request("mount", 1, "t1");
    differ["jobid"] = json!(2);
    vec![
        (jobid(json!("job-789")), "jobid must be an integer"),
        (jobid(json!(2_147_483_648_u64)), "jobid must be an integer"),
        (jobid(json!(1.5)), "jobid must be an integer"),
        (jobid(json!(true)), "jobid must be an integer"),
        (jobid(Value::Null), "jobid"),
        (differ.to_string(), "jobid is 2"),
        (changed(lab, "/host", Value::Null), "host"),
    ]
}

fn check(lab: &Lab, run: &dms_tests::Run, bad: &[(String, &str)]) {
    let answers = run.expect(1).lines();
    assert_eq!(answers.len(), bad.len() + 1, "not one answer for each line: {run}");
    for ((line, word), answer) in bad.iter().zip(&answers) {
        let short: String = line.chars().take(300).collect();
        assert_eq!(answer["error_code"], "validation", "{short}\n{answer}");
        assert_eq!((&answer["status"], &answer["success_msg"]), (&json!("error"), &Value::Null));
        let text = answer["error_msg"].as_str().unwrap_or_default();
        assert!(text.contains(word), "{short}\nsays {text:?}, not {word:?}");
        assert!(text.len() < 600 && !text.contains("lab-token"), "{text}");
    }
    assert_eq!(answers[bad.len()]["status"], "success", "the stream did not go on: {run}");
    assert!(!std::path::Path::new("/etc/dms-test").exists());
    assert!(!lab.path("elsewhere/x").exists(), "a link was followed");
}

fn lab_with_link() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("elsewhere")).expect("room for it");
    std::os::unix::fs::symlink(lab.path("elsewhere"), lab.path("mnt/link")).expect("a fresh name");
    lab
}

#[test]
fn dms_mount_refuses_what_is_malformed() {
    let lab = lab_with_link();
    let bad = bad_lines(&lab);
    let good = lab.request("unmount", 1, "t1").to_string();
    let lines = bad.iter().map(|(line, _)| line.as_str()).chain([good.as_str()]);
    let input = lines.collect::<Vec<_>>().join("\n");
    check(&lab, &lab.feed("dms-mount", &[], &input), &bad);
    assert!(!lab.mount_point("t1").exists());
}

#[test]
fn the_pipeline_refuses_what_is_malformed() {
    let lab = lab_with_link();
    let mut bad = bad_lines(&lab);
    bad.extend(bad_jobs(&lab));
    let good = lab.request("mount", 1, "t1").to_string();
    let lines = bad.iter().map(|(line, _)| line.as_str()).chain([good.as_str()]);
    let input = lines.collect::<Vec<_>>().join("\n");
    check(&lab, &lab.feed("dms-pipeline", &[], &input), &bad);
    assert_eq!(lab.users("t1"), [1]);
    lab.unmount(1, "t1");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let lab = Lab::new();
    let mut input = vec![0xff, 0xfe, b'\n', 0, b'\n'];
    input.extend(lab.request("unmount", 1, "t1").to_string().bytes());
    let run = run(&mut lab.command("dms-mount", &[]), &input);
    let codes: Vec<Value> = run.expect(1).lines().iter().map(|l| l["error_code"].clone()).collect();
    assert_eq!(codes, [json!("validation"), json!("validation"), Value::Null]);
}

#[test]
fn a_deleted_target_can_still_be_unmounted() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let mut request = lab.request("unmount", 1, "t1");
    request["backup_target"]["deleted"] = json!(true);
    request["backup_target"]["status"] = json!("unavailable");
    assert_eq!(lab.send(&request)["unmounted"], true);
    lab.assert_gone("t1");
}

#[test]
fn a_line_of_any_length_is_refused_without_being_held_in_memory() {
    let lab = Lab::new();
    for (program, args) in [
        ("dms-mount", &[][..]),
        ("dms-ledger", &["plan"]),
        ("dms-ledger", &["commit"]),
        ("dms-lock", &["--each", "--", "cat"]),
    ] {
        let mut command = lab.command(program, args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
        let mut stdin = child.stdin.take().expect("piped");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            stdin.write_all(&chunk).expect("it reads on");
        }
        stdin.write_all(b"\n{}\n").expect("it reads on");
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
        for word in ["1 MiB", "error"] {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut stdout, &mut line).expect("it answers");
            assert!(line.contains(word), "{program}: {line}");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: u64 =
            peak.and_then(|kb| kb.trim().split(' ').next()?.parse().ok()).expect("a number");
        assert!(peak < 20_000, "{program} {args:?} held {peak} kB");
        drop(stdin);
        stdout.read_to_end(&mut Vec::new()).expect("it ends");
        child.wait().expect("it is ours");
    }
}

#[test]
fn the_longest_request_goes_through_and_one_byte_more_does_not() {
    let lab = Lab::new();
    let request = |length: usize| {
        let mut request = lab.request("unmount", 1, "t1");
        request["context"]["padding"] = json!("");
        let missing = length - request.to_string().len();
        request["context"]["padding"] = json!("p".repeat(missing));
        let line = request.to_string();
        assert_eq!(line.len(), length);
        line
    };
    for program in ["dms-pipeline", "dms-mount"] {
        let input = format!("{}\n{}\n", request(1 << 20), request((1 << 20) + 1));
        let answers = lab.feed(program, &[], &input).expect(1).lines();
        assert_ne!(answers[0]["error_code"], "validation", "{program}: {}", answers[0]);
        assert_eq!(answers[1]["error_code"], "validation", "{program}: {}", answers[1]);
    }
}

#[test]
fn wrong_credentials_a_missing_bucket_and_a_dead_server_are_clear_errors_and_leave_nothing() {
    let mut lab = Lab::new();
    let try_with = |lab: &Lab, secret: &str, code: &str, words: &[&str]| {
        let start = Instant::now();
        let mut request = lab.request("mount", 1, "t1");
        request["backup_target"]["secret_ref"] = json!(secret);
        let answer = lab.send(&request);
        assert_eq!(answer["error_code"], code, "{answer}");
        let text = answer["error_msg"].as_str().unwrap_or_default();
        assert!(words.iter().all(|word| text.contains(word)), "{text}: not {words:?}");
        assert!(text.contains("s3fs said"), "not the program's own words: {text}");
        assert!(start.elapsed() < Duration::from_secs(15), "after {:?}", start.elapsed());
        lab.assert_gone("t1");
        assert_eq!(lab.users("t1"), [0; 0]);
    };
    let secret = lab.secret("key", |secret| secret["access_key"] = json!("AKNOBODY"));
    try_with(&lab, &secret, "credentials", &["credentials", "NotSignedUp"]);
    let secret = lab.secret("secret", |secret| secret["secret_key"] = json!("wrong"));
    try_with(&lab, &secret, "credentials", &["credentials", "SignatureDoesNotMatch"]);
    let secret = lab.secret("bucket", |secret| secret["bucket"] = json!("no-such-bucket"));
    try_with(&lab, &secret, "mount", &["NoSuchBucket"]);
    let secret = lab.secret("good", |_| ());
    lab.stop_server();
    try_with(&lab, &secret, "mount", &["CURLE_COULDNT_CONNECT"]);
    lab.restart_server();
    lab.mount(1, "t1");
    lab.unmount(1, "t1");
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up_in_time() {
    let lab = Lab::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let secret = lab.secret("silent", |secret| {
        secret["endpoint_url"] = json!(format!("http://127.0.0.1:{port}"));
    });
    let start = Instant::now();
    let mut request = lab.request("mount", 1, "t1");
    request["backup_target"]["secret_ref"] = json!(secret);
    let answer = lab.send(&request);
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(answer["error_msg"].as_str().is_some_and(|msg| msg.contains("timeout")), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(15), "after {:?}", start.elapsed());
    lab.assert_gone("t1");
}

#[test]
fn a_deadline_that_has_passed_starts_nothing() {
    let lab = Lab::new();
    let line = changed(&lab, "/deadline", json!(0.5));
    for program in ["dms-pipeline", "dms-mount"] {
        let answer = lab.feed(program, &[], &line).expect(1).line();
        let code = answer["error_code"].as_str().unwrap_or_default();
        assert!(matches!(code, "timeout" | "lock_timeout"), "{program}: {answer}");
    }
    lab.assert_gone("t1");
}

#[test]
fn a_request_that_grows_when_it_is_written_out_is_refused_before_it_reserves_anything() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1").to_string();
    // Each number is four bytes as it comes, and eighteen as it goes on.
    request.pop();
    request.push_str(&format!(",\"numbers\":[{}1e15]}}", "1e15,".repeat(100_000)));
    assert_eq!(
        lab.send(&serde_json::from_str(&request).expect("JSON"))["error_code"],
        "validation"
    );
    let answer = lab.feed("dms-pipeline", &[], &format!("{request}\n")).line();
    assert_eq!(answer["error_code"], "validation", "{answer}");
    assert!(lab.history("t1").is_empty(), "an operation was opened");
}
