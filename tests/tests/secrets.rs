//! No token and no key is seen where it does not belong.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use dms_tests::{Lab, bin_dir, processes_with, run};
use nix::sys::signal::Signal;
use serde_json::json;

const TOKEN: &str = "gAAAA-the-token-of-this-test";

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn no_secret_in_argv_logs_database_records_or_responses() {
    let lab = Lab::new();
    let bad = lab.secret("bad", |secret| secret["secret_key"] = json!("wr0ng-s3cret-k3y"));
    let mut words = vec![TOKEN, "wr0ng-s3cret-k3y", "job-detail-secret"];
    words.extend(lab.secrets());
    let mut request = lab.request("mount", 1, "t1");
    request["keystone_token"] = json!(TOKEN);
    request["job"]["job_details"] = json!([{"id": "d", "data": {"password": "job-detail-secret"}}]);
    let mut failing = request.clone();
    failing["backup_target"]["id"] = json!("t2");
    failing["backup_target"]["secret_ref"] = json!(bad);
    let mut unmount = request.clone();
    unmount["action"] = json!("unmount");

    let mut said = String::new();
    for (request, wanted) in [(&request, "success"), (&failing, "error"), (&request, "success")] {
        let mut pipeline = lab.pipeline_command();
        let run = run(pipeline.env("DMS_LOG_LEVEL", "TRACE"), format!("{request}\n").as_bytes());
        assert_eq!(run.line()["status"], wanted, "{run}");
        said.push_str(&run.to_string());
    }
    assert!(lab.mounted("t1").is_some());
    for word in &words {
        assert!(!said.contains(word), "{word} in\n{said}");
        let seen: Vec<_> =
            processes_with(word).into_iter().filter(|p| p.command.contains(word)).collect();
        // The lab's own S3 server is told its access key on its command line.
        let seen: Vec<_> = seen.iter().filter(|p| !p.command.contains("dms-test-s3")).collect();
        assert!(seen.is_empty(), "{word} on a command line: {seen:?}");
        let mut files = Vec::new();
        for dir in ["state", "run", "lock"] {
            files_below(&lab.path(dir), &mut files);
        }
        assert!(files.len() > 5, "there is nothing to look at: {files:?}");
        for file in files {
            let bytes = fs::read(&file).expect("it is there");
            assert!(!contains(&bytes, word), "{word} in {}", file.display());
        }
    }
    lab.send(&unmount);
}

#[test]
fn the_daemon_has_its_own_environment_and_no_descriptor_of_ours() {
    let lab = Lab::new();
    let mut pipeline = lab.pipeline_command();
    pipeline.env("A_SECRET_OF_THE_SERVICE", TOKEN).env("AWS_SESSION_TOKEN", "not-its-own");
    let request = format!("{}\n", lab.request("mount", 1, "t1"));
    run(&mut pipeline, request.as_bytes()).expect(0);
    let daemon = format!("/proc/{}", lab.daemons("t1")[0].pid);
    let environment = fs::read(format!("{daemon}/environ")).expect("we are root");
    let environment = String::from_utf8_lossy(&environment);
    let names: Vec<&str> = environment
        .split('\0')
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, _)| name)
        .collect();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let own = [&keys[..], &["PATH", "HOME", "LANG", "DMS_TARGET_ID", "DMS_MOUNT_PATH"]].concat();
    assert!(names.iter().all(|name| own.contains(name)), "{names:?}");
    for descriptor in fs::read_dir(format!("{daemon}/fd")).expect("we are root").flatten() {
        let to = fs::read_link(descriptor.path()).unwrap_or_default();
        let to = to.to_string_lossy();
        assert!(!to.contains("/lock/") && !to.contains("/act/") && !to.contains("ledger"), "{to}");
    }
    // And it stands in a session of its own, and keeps no directory busy.
    assert_eq!(fs::read_link(format!("{daemon}/cwd")).expect("it runs"), Path::new("/"));
    let stat = fs::read_to_string(format!("{daemon}/stat")).expect("it runs");
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(fields[3], lab.daemons("t1")[0].pid.to_string(), "its session: {stat}");
}

#[test]
fn a_request_that_calls_itself_an_error_is_refused_and_not_echoed() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["status"] = json!("error");
    request["error_msg"] = json!("x");
    request["keystone_token"] = json!(TOKEN);
    for (program, args, code) in [
        ("dms-ledger", &["plan"][..], "validation"),
        ("dms-mount", &[], "validation"),
        ("dms-ledger", &["commit"], "internal"),
        ("dms-lock", &["--each", "--", "cat"], "validation"),
        ("dms-pipeline", &[], "validation"),
    ] {
        let run = lab.feed(program, args, &format!("{request}\n"));
        let answer = run.expect(1).line();
        assert_eq!(answer["error_code"], code, "{program}: {answer}");
        assert!(!run.to_string().contains(TOKEN), "{program} echoed it: {run}");
        assert!(answer["backup_target"].is_null(), "{program}: {answer}");
    }
    lab.assert_gone("t1");
}

#[test]
fn a_token_is_taken_from_the_environment_and_never_from_the_command_line() {
    let lab = Lab::new();
    let args = ["request", "unmount", "--job-id", "1", "--target-id", "t1"];
    let mut command = lab.command("dms-ledger", &args);
    let line = run(command.env("KEYSTONE_TOKEN", TOKEN), b"").expect(0).line();
    assert_eq!(line["keystone_token"], TOKEN);
    let refused = lab.feed("dms-ledger", &[&args[..], &["--token", TOKEN]].concat(), "");
    refused.expect(100);
    assert!(refused.stderr.contains("KEYSTONE_TOKEN") && refused.stdout.is_empty(), "{refused}");
    assert!(
        !refused.to_string().replace(&format!("{:?}", TOKEN), "").contains(&format!(" {TOKEN}"))
    );
}

#[test]
fn a_token_is_not_printed_on_a_terminal() {
    let lab = Lab::new();
    let line = lab.request("mount", 1, "t1").to_string();
    fs::write(lab.path("line"), format!("{line}\n")).expect("room for it");
    for command in [
        "KEYSTONE_TOKEN=gAAAA-terminal dms-ledger request unmount --job-id 1 --target-id t1",
        "dms-ledger plan <line",
    ] {
        // script(1) gives it a terminal, and -e its exit code.
        let run = lab.shell(&format!("script -qec '{command}' /dev/null"));
        run.expect(100);
        assert!(run.stdout.contains("terminal") && !run.stdout.contains("\"keystone"), "{run}");
    }
    assert!(lab.history("t1").is_empty(), "an operation was opened for it");
}

#[test]
fn a_secret_file_that_others_can_read_or_that_lies_elsewhere_is_refused() {
    let lab = Lab::new();
    fs::write(lab.path("outside"), "{}").expect("room for it");
    lab.shell("chmod 644 secrets/good; ln -s /etc/shadow secrets/link").expect(0);
    let secrets = lab.path("secrets");
    for reference in [
        format!("file://{}/good", secrets.display()),
        format!("file://{}/link", secrets.display()),
        format!("file://{}/../outside", secrets.display()),
        "file:///etc/shadow".to_owned(),
        "https://barbican.example/v1/secrets/x".to_owned(),
    ] {
        let mut request = lab.request("mount", 1, "t1");
        request["backup_target"]["secret_ref"] = json!(reference);
        let answer = lab.send(&request);
        assert_eq!(answer["error_code"], "credentials", "{reference}: {answer}");
        let text = answer["error_msg"].as_str().unwrap_or_default();
        assert!(text.contains("credentials") && !text.contains("root:"), "{text}");
        lab.assert_gone("t1");
    }
}

/// A mount whose secret is of a key manager that takes connections and never says anything; and its URL.
fn mount_with_secret_of(silent: &TcpListener, lab: &Lab) -> (String, serde_json::Value) {
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    let mut request = lab.request("mount", 1, "t1");
    let id = "1d3f1a5e-6d2c-4c55-9d0a-0a1b2c3d4e5f";
    request["backup_target"]["secret_ref"] = json!(format!("{url}/v1/secrets/{id}"));
    request["keystone_token"] = json!(TOKEN);
    (url, request)
}

#[test]
fn the_process_that_asks_a_key_manager_is_told_the_token_by_a_pipe_and_may_die() {
    let lab = Lab::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (url, request) = mount_with_secret_of(&silent, &lab);
    let mut pipeline = lab.pipeline_command();
    pipeline.env("DMS_BARBICAN_URL", url);
    let said = std::thread::scope(|scope| {
        let line = format!("{request}\n");
        let said = scope.spawn(move || run(&mut pipeline, line.as_bytes()));
        let _connection = silent.accept().expect("it is asked");
        let mut processes = lab.processes().into_iter();
        let asking = processes.find(|process| process.command.ends_with("/dms-mount-secret"));
        let asking = asking.expect("it waits for an answer");
        let environment = fs::read(format!("/proc/{}/environ", asking.pid)).expect("it runs");
        assert!(!contains(&environment, TOKEN));
        assert!(asking.signal(Signal::SIGKILL));
        said.join().expect("it ends")
    });
    let answer = said.line();
    assert_eq!(answer["error_code"], "credentials", "{said}");
    let words = "dms-mount-secret did not answer (signal: 9 (SIGKILL))";
    assert!(answer["error_msg"].as_str().is_some_and(|text| text.ends_with(words)), "{said}");
    lab.assert_gone("t1");
}

#[test]
fn without_the_program_that_asks_a_key_manager_the_request_is_told_so() {
    let lab = Lab::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (url, request) = mount_with_secret_of(&silent, &lab);
    let alone = lab.path("alone");
    fs::create_dir(&alone).expect("a fresh name");
    fs::copy(bin_dir().join("dms-mount"), alone.join("dms-mount")).expect("it was built");
    let mut alone = lab.command("sh", &["-c", &format!("{}/dms-mount", alone.display())]);
    let said = run(alone.env("DMS_BARBICAN_URL", url), format!("{request}\n").as_bytes());
    let words = "Failed to fetch credentials: unable to start dms-mount-secret: entity not found";
    assert_eq!(said.line()["error_msg"], words, "{said}");
}
