//! A job that runs for long: nothing of ours is open meanwhile, so nothing of it can break.

use std::fs;

use dms_tests::{Broker, Database, Lab, Listener, eventually};

use crate::{Job, file};

const CLIENT: &str = "dms-lock --each -- sh -c 'dms-ledger plan | dms-call | dms-ledger commit'";

#[test]
fn while_the_command_runs_there_is_no_stage_and_no_connection_of_ours() {
    let lab = Lab::new();
    let job = Job::start(&lab, 1, "t1", "");
    let stages = ["dms-lock", "dms-ledger", "dms-call", "dms-pipeline", "dms-mount "];
    let mut running = lab.processes();
    running.retain(|process| stages.iter().any(|stage| process.command.contains(stage)));
    assert_eq!(running, []);
    let open = fs::read_dir(format!("/proc/{}/fd", job.child.id())).expect("it runs");
    for fd in open.flatten() {
        let to = fs::read_link(fd.path()).unwrap_or_default().display().to_string();
        assert!(!to.starts_with("socket:") || fd.file_name().len() == 1, "{to}");
        assert!(!to.contains("ledger.db"), "{to}");
    }
    // Its `read` says that there was nothing.
    assert_eq!(job.end().code(), Some(1));
    lab.assert_gone("t1");
}

#[test]
fn a_job_outlives_the_connections_of_broker_and_database() {
    let mut broker = Broker::start();
    let mut server = Database::start();
    let url = server.create("idle");
    let (node, client) = (Lab::unique(), Lab::on_sqlite());
    let ledger = |args: &[&str]| {
        let mut command = client.command("dms-ledger", args);
        dms_tests::run(command.env("DMS_DB_URL", &url), b"")
    };
    ledger(&["init"]).expect(0);
    let listener = Listener::start(&node, &broker, &["--", "dms-mount"]);
    let path = node.mount_point("t1");
    let mut request = node.request("mount", 1, "t1");
    request["backup_target"]["filesystem_export_mount_path"] = path.display().to_string().into();
    let up = client.fresh_path("up");
    let script = format!("echo $$ >{}; read x; exit 6", up.display());
    let file = file(&client, &[request]);
    let mut command = client.command("dms-with", &[&file, "--", "sh", "-c", &script]);
    command
        .env("DMS_DB_URL", &url)
        .env("DMS_RABBITMQ_URL", broker.url())
        .env("DMS_PIPELINE", CLIENT);
    let job = Job::spawn(&mut command, up.clone());
    eventually("the command runs", || up.exists());
    assert!(node.mounted("t1").is_some(), "{}", job.log());

    server.restart();
    broker.restart();
    listener.wait_for("serving", 2);
    let ended = job.end();
    assert_eq!(ended.code(), Some(6));
    node.assert_gone("t1");
    let left = ledger(&["list", "--json"]);
    assert_eq!(left.expect(0).stdout, "", "{left}");
}
