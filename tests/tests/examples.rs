//! What an operator copies, and does by hand: the scripts of examples/, the old program's commands,
//! and the files of packaging/. All of them on real mounts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dms_tests::calling::call;
use dms_tests::{Broker, Lab, Listener, Run, bin_dir, eventually, processes_with, run};
use nix::sys::signal::Signal;
use serde_json::Value;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CLI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/trilio-dms-cli");
const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/dms-pipeline");

fn example(name: &str) -> String {
    format!("{PROJECT}/examples/{name}")
}

/// Runs one of them with this input.
#[track_caller]
fn ask(lab: &Lab, name: &str, args: &[&str], input: &str) -> Run {
    lab.feed(&example(name), args, input)
}

/// What mass-unmount says of each request: the job, the target as JSON has it, and the response.
#[track_caller]
fn answers(said: &Run) -> Vec<(String, String, Value)> {
    let parts = |line: &str| {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        let [job, target, response] = parts[..] else { panic!("{line:?}\n{said}") };
        let response = serde_json::from_str(response).unwrap_or_else(|why| panic!("{why}\n{said}"));
        (job.to_owned(), target.to_owned(), response)
    };
    said.stdout.lines().map(parts).collect()
}

#[test]
fn each_example_is_a_program_that_says_what_it_does() {
    for entry in fs::read_dir(Path::new(PROJECT).join("examples")).expect("it is there").flatten() {
        let name = entry.file_name().into_string().expect("plain names");
        let mode = entry.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} cannot be run");
        let text = fs::read_to_string(entry.path()).expect("it is text");
        let header = text.lines().nth(1).unwrap_or_default();
        assert!(text.starts_with("#!/") && header.starts_with(&format!("# {name}: ")), "{name}");
    }
}

#[test]
fn who_uses_a_target_is_told_by_job_mount_and_process_also_of_one_that_hangs() {
    let lab = Lab::new();
    assert_eq!(ask(&lab, "who-uses", &["t 1\"x"], "").expect(1).stdout, "");
    lab.mount(12, "t 1\"x");
    lab.mount(13, "t 1\"x");
    lab.mount(14, "other");
    let user = lab.job_in("t 1\"x");
    let path = lab.mount_point("t 1\"x").display().to_string();
    let said = ask(&lab, "who-uses", &["t 1\"x"], "");
    said.expect(0);
    for words in ["  12  ", "  13  ", &format!("\n  {path}\n"), &format!("\n  {} ", user.pid())] {
        assert!(said.stdout.contains(words), "{words:?} is missing\n{said}");
    }
    assert!(!said.stdout.contains("other"), "{said}");

    let mut daemons = processes_with(&path);
    daemons.retain(|process| process.command.contains("s3fs"));
    assert!(!daemons.is_empty());
    for daemon in &daemons {
        daemon.signal(Signal::SIGSTOP);
        eventually("the daemon stops", || daemon.is_stopped());
    }
    let said = ask(&lab, "who-uses", &["t 1\"x"], "");
    assert!(said.expect(0).stdout.contains(&format!("\n  {} ", user.pid())), "{said}");
    for daemon in &daemons {
        daemon.signal(Signal::SIGCONT);
    }
    user.release();
    ask(&lab, "who-uses", &[], "").expect(100);
}

#[test]
fn many_jobs_leave_at_once_and_one_target_that_hangs_keeps_no_other_mounted() {
    let lab = Lab::new();
    for (job, target) in [(1, "t1"), (2, "t1"), (2, "t2"), (3, "t 3\"x")] {
        lab.mount(job, target);
    }
    let said = ask(&lab, "mass-unmount", &["1", "2"], "");
    let told: Vec<_> = answers(said.expect(0)).into_iter().map(|(job, _, _)| job).collect();
    assert_eq!(told.len(), 3, "{said}");
    lab.assert_gone("t1");
    lab.assert_gone("t2");
    assert_eq!(lab.users("t 3\"x"), [3]);

    // The rows of the ledger are a list, too.
    let rows = lab.feed("dms-ledger", &["list", "--json"], "").expect(0).stdout.clone();
    let said = ask(&lab, "mass-unmount", &["-p", "1"], &rows);
    let told = answers(said.expect(0));
    assert_eq!((&*told[0].0, &*told[0].1), ("3", "\"t 3\\\"x\""), "{said}");
    lab.assert_gone("t 3\"x");
    let told = answers(ask(&lab, "mass-unmount", &[], &rows).expect(1));
    assert_eq!(told[0].2["error_code"], "no_active_mount");

    for target in ["t1", "t2", "t3"] {
        lab.mount(1, target);
    }
    let daemon = lab.daemons("t1").pop().expect("it is mounted");
    daemon.signal(Signal::SIGSTOP);
    eventually("the daemon stops", || daemon.is_stopped());
    let said = ask(&lab, "mass-unmount", &["-p", "3", "-t", "5", "1"], "");
    let told = answers(said.expect(1));
    let hung = told.iter().find(|(_, target, _)| target == "\"t1\"").expect("it is answered, too");
    assert!(hung.2["error_msg"].as_str().is_some_and(|text| text.contains("timeout")), "{said}");
    assert_eq!(told.iter().filter(|(_, _, answer)| answer["unmounted"] == true).count(), 2);
    lab.assert_gone("t2");
    daemon.signal(Signal::SIGCONT);
    ask(&lab, "mass-unmount", &["1"], "").expect(0);
    lab.assert_gone("t1");

    assert_eq!(ask(&lab, "mass-unmount", &["1"], "").expect(0).stdout, "");
    ask(&lab, "mass-unmount", &[], "not of ours\n").expect(100);
    ask(&lab, "mass-unmount", &["-t", "soon"], "").expect(100);
}

#[test]
fn what_dead_jobs_use_is_released_and_doubt_takes_nothing_from_anybody() {
    let lab = Lab::new();
    for (job, target) in [(1, "t1"), (2, "t1"), (2, "t2"), (3, "t3")] {
        lab.mount(job, target);
    }
    let two = ["sh", "-c", "test \"$1\" = 2", "is-dead"];
    let look = ask(&lab, "release-dead-jobs", &[&["-n"], &two[..]].concat(), "");
    let rows = look.expect(0).lines();
    assert_eq!(rows.len(), 2, "{look}");
    assert!(rows.iter().all(|row| row["job"] == 2), "{look}");
    assert_eq!(lab.users("t1"), [1, 2], "looking has done something");

    // Nobody is dead because the question cannot be answered.
    let said = ask(&lab, "release-dead-jobs", &["sh", "-c", "exit 111"], "");
    assert_eq!(said.expect(0).stdout, "");
    ask(&lab, "release-dead-jobs", &["no-such-command"], "").expect(127);
    ask(&lab, "release-dead-jobs", &[], "").expect(100);
    assert_eq!(lab.users("t1"), [1, 2]);

    let said = ask(&lab, "release-dead-jobs", &two, "");
    assert_eq!(answers(said.expect(0)).len(), 2, "{said}");
    lab.assert_gone("t2");
    assert_eq!((lab.users("t1"), lab.users("t3")), (vec![1], vec![3]));
    assert!(lab.mounted("t1").is_some() && lab.mounted("t3").is_some());
    lab.unmount(1, "t1");
    lab.unmount(3, "t3");
}

#[test]
fn a_node_is_reconciled_and_what_was_wrong_is_told() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    assert_eq!(ask(&lab, "reconcile-node", &[], "").expect(0).stdout, "");
    for daemon in lab.daemons("t1") {
        daemon.signal(Signal::SIGKILL);
    }
    eventually("the daemon is dead", || lab.daemons("t1").is_empty());
    let said = ask(&lab, "reconcile-node", &[], "");
    said.expect(0);
    for words in ["no-daemon", "Reconciling:", "\"status\":\"success\"", "left:\nnothing\n"] {
        assert!(said.stdout.contains(words), "{words:?} is missing\n{said}");
    }
    fs::write(lab.mount_point("t1").join("x"), "still here").expect("it is mounted again");
    // What it cannot put right, it says: nobody knows whose this is.
    lab.sql("DELETE FROM backup_target_mount_ledger");
    lab.sql("DELETE FROM backup_target_mount_operations");
    let said = ask(&lab, "reconcile-node", &[], "");
    assert!(said.expect(1).stdout.contains("unused"), "{said}");
    ask(&lab, "reconcile-node", &["--take-unknown"], "").expect(0);
    lab.assert_gone("t1");
}

#[test]
fn a_node_is_drained_and_jobs_may_leave_it_meanwhile() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let mut listener = Listener::start(&lab, &broker, &["--", PIPELINE]);
    lab.mount(1, "t1");
    lab.mount(2, "t2");
    let stop = listener.pid().to_string();
    let mut command = lab.command(&example("drain-node"), &["-t", "100", "kill", &stop]);
    let mut drain = Listener::spawn(&lab, command.env("DMS_RABBITMQ_URL", broker.url()));
    drain.wait_for("serving", 1);
    assert!(listener.wait().success());

    let url = broker.url();
    let refused = call(&lab, &url, &[], &[lab.request("mount", 3, "t1")]);
    assert_eq!(refused.expect(1).line()["error_code"], "busy", "{refused}");
    let leave = [lab.request("unmount", 1, "t1"), lab.request("unmount", 2, "t2")];
    let left = call(&lab, &url, &[], &leave);
    assert!(left.expect(0).lines().iter().all(|answer| answer["unmounted"] == true), "{left}");

    assert!(drain.wait().success(), "{}", drain.log());
    assert!(drain.log().contains("nothing is mounted"), "{}", drain.log());
    let nobody = call(&lab, &url, &[], &[lab.request("mount", 3, "t1")]);
    assert_eq!(nobody.expect(1).line()["error_code"], "no_listener", "{nobody}");
    lab.assert_gone("t1");
    lab.assert_gone("t2");
}

#[test]
fn what_is_left_when_a_node_was_drained_is_unmounted_unless_it_is_in_use() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.mount(2, "t2");
    let user = lab.job_in("t2");
    let said = ask(&lab, "drain-node", &["-t", "0", "true"], "");
    assert!(said.expect(1).stdout.contains(&user.pid().to_string()), "{said}");
    lab.assert_gone("t1");
    assert!(lab.mounted("t2").is_some());
    assert_eq!(lab.users("t2"), [2], "nobody would try again");
    user.release();
    ask(&lab, "drain-node", &["-t", "0", "true"], "").expect(0);
    lab.assert_gone("t2");
    // A listener that cannot be stopped goes on: nothing is taken away.
    lab.mount(1, "t1");
    ask(&lab, "drain-node", &["-t", "0", "sh", "-c", "exit 5"], "").expect(5);
    assert!(lab.mounted("t1").is_some());
    lab.unmount(1, "t1");
}

#[test]
fn the_old_programs_six_commands_go_on_by_the_nodes_own_pipeline() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let of = ["--job-id", "123", "--target-id", "target-456"];
    let on = ["--target-type", "s3", "--host", &lab.node];
    let cli = |args: &[&[&str]]| lab.feed(CLI, &args.concat(), "");

    let said = cli(&[&["mount"], &of, &on, &["--secret-ref", &secret]]);
    assert_eq!(said.expect(0).line()["physically_mounted"], true, "{said}");
    assert!(lab.mounted("target-456").is_some());
    for shown in [
        cli(&[&["status"], &of]),
        cli(&[&["list-mounts", "--host", &lab.node]]),
        cli(&[&["history", "--target-id", "target-456", "--limit", "20"]]),
    ] {
        assert!(shown.expect(0).stdout.contains("target-456"), "{shown}");
    }
    let said = cli(&[&["unmount"], &of, &on]);
    assert_eq!(said.expect(0).line()["unmounted"], true, "{said}");
    lab.assert_gone("target-456");

    let said = cli(&[&["unmount"], &of, &on]);
    assert_eq!(said.expect(1).line()["error_code"], "no_active_mount", "{said}");
    cli(&[&["status", "--job-id", "7", "--target-id", "target-456"]]).expect(1);
    cli(&[&["cleanup", "--hours", "24"]]).expect(0);
    cli(&[&["mount", "--job-id", "job-123", "--target-id", "t1"], &on]).expect(100);
    cli(&[&["remount"]]).expect(100);
    cli(&[]).expect(100);
}

#[test]
fn the_old_program_takes_no_token_from_a_command_line_and_shows_none() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let of = ["--job-id", "1", "--target-id", "t1", "--target-type", "s3", "--secret-ref", &secret];
    for token in [&["--token", "must-not-leak"][..], &["--token=must-not-leak"]] {
        for verb in ["mount", "unmount", "status"] {
            let said = lab.feed(CLI, &[&[verb], &of[..], token].concat(), "");
            assert_eq!(said.expect(100).stdout, "");
            let why = &said.stderr;
            assert!(why.contains("KEYSTONE_TOKEN") && !why.contains("must-not-leak"), "{said}");
        }
    }
    assert_eq!(lab.mounted("t1"), None);
    // The pipeline gets it, by its input.
    let filter =
        "grep -q '\"keystone_token\":\"by-environment\"' && echo '{\"status\":\"success\"}'";
    let mut command = lab.command(CLI, &[&["mount"], &of[..]].concat());
    command.env("KEYSTONE_TOKEN", "by-environment").env("DMS_PIPELINE", filter);
    let said = run(&mut command, b"");
    assert_eq!(said.expect(0).stdout, "{\"status\":\"success\"}\n");
}

/// A directory with the tools of a client: what mounts is not among them.
fn client_tools(lab: &Lab) -> PathBuf {
    let dir = lab.path("client-tools");
    fs::create_dir(&dir).expect("room for it");
    for tool in ["dms-lock", "dms-ledger", "dms-call"] {
        symlink(bin_dir().join(tool), dir.join(tool)).expect("a fresh directory");
    }
    dir
}

#[test]
fn the_old_program_of_a_client_asks_the_listener_and_a_node_with_a_broker_is_not_guessed_about() {
    let (node, client, broker) = (Lab::unique(), Lab::named("client"), Broker::shared());
    let _listener = Listener::start(&node, &broker, &["--", "dms-mount"]);
    let secret = node.secret("good", |_| ());
    let path = node.mount_point("t1").display().to_string();
    let of = ["--job-id", "1", "--target-id", "t1", "--target-type", "s3", "--host", &node.node];
    let tools = format!("{}:/usr/bin:/bin", client_tools(&client).display());
    let cli = |verb: &str, more: &[&str]| {
        let mut command = client.command(CLI, &[&[verb], &of[..], more].concat());
        run(command.env("PATH", &tools).env("DMS_RABBITMQ_URL", broker.url()), b"")
    };

    let said = cli("mount", &["--secret-ref", &secret, "--mount-path", &path]);
    assert_eq!(said.expect(0).line()["physically_mounted"], true, "{said}");
    assert!(node.mounted("t1").is_some());
    assert_eq!(client.users("t1"), [1], "the ledger is the client's");
    let said = cli("unmount", &[]);
    assert_eq!(said.expect(0).line()["unmounted"], true, "{said}");
    node.assert_gone("t1");

    let mut command = node.command(CLI, &[&["unmount"], &of[..]].concat());
    let said = run(command.env("DMS_RABBITMQ_URL", broker.url()), b"");
    assert!(said.expect(100).stderr.contains("DMS_PIPELINE is not set"), "{said}");
}

#[test]
fn a_node_without_systemd_is_reconciled_before_its_first_request() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    lab.mount(1, "t1");
    for daemon in lab.daemons("t1") {
        daemon.signal(Signal::SIGKILL);
    }
    eventually("the daemon is dead", || lab.daemons("t1").is_empty());
    let program = format!("{PROJECT}/packaging/container/dms-node");
    let start = |args: &[&str]| {
        let mut command = lab.command(&program, args);
        Listener::spawn(&lab, command.env("DMS_RABBITMQ_URL", broker.url()))
    };

    let mut node = start(&[]);
    node.wait_for("serving", 1);
    let log = node.log();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words:?} is missing\n{log}"));
    assert!(at("spawned successfully") < at("serving"), "{log}");
    fs::write(lab.mount_point("t1").join("x"), "still here").expect("it is mounted again");
    // It is the listener: what stops a container stops that, and the daemons are not its own.
    let said = call(&lab, &broker.url(), &[], &[lab.request("mount", 2, "t1")]);
    assert_eq!(said.expect(0).line()["reused_existing"], true, "{said}");
    node.signal(Signal::SIGTERM);
    assert!(node.wait().success(), "{}", node.log());
    assert!(!lab.daemons("t1").is_empty(), "the mount has ended with the listener");

    // Without a ledger on the node, it does what it is told.
    let mut node = start(&["act"]);
    node.wait_for("serving", 1);
    let said = call(&lab, &broker.url(), &[], &[lab.request("unmount", 2, "t1")]);
    assert_eq!(said.expect(0).line()["unmounted"], true, "{said}");
    lab.assert_gone("t1");
    node.signal(Signal::SIGTERM);
    assert!(node.wait().success(), "{}", node.log());
    assert_eq!(start(&["frobnicate"]).wait().code(), Some(100));
}

#[test]
fn the_files_for_containers_clusters_alerts_and_logs_fit_the_project() {
    let mut lint = Command::new(format!("{PROJECT}/packaging/lint"));
    let said = run(lint.env("DMS_BIN", bin_dir()), b"");
    assert_eq!(said.expect(0).stdout, "");
}
