//! What the comparisons stand on: a node with targets that are mounted, and how it is asked.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use dms_tests::{Database, Filter, Lab, Peer};
use serde_json::Value;

/// A database server as a site would have it: what the tests' own keep small, a bench needs room for.
/// Each commit is on the disk before it is answered, as it is by default.
pub(crate) fn database() -> Arc<Database> {
    let options = ["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=256M"];
    Arc::new(Database::with_options(&options))
}

/// A fresh node with its ledger on this server, or in a file. What belongs on a tmpfs is on one.
pub(crate) fn node(server: Option<&Arc<Database>>) -> Lab {
    let lab = server.map_or_else(Lab::on_sqlite, |server| Lab::on_mariadb(server.clone()));
    for name in ["run", "lock"] {
        let path = lab.path(name);
        fs::create_dir(&path).expect("a fresh name");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=0755", "none"]).arg(&path);
        assert!(mount.status().is_ok_and(|end| end.success()), "no tmpfs: this needs root");
    }
    lab
}

/// A job that stays, so that the others find the target mounted and leave it so.
const KEEPER: i32 = 1;

/// A node with so many targets, mounted; returns their ids.
pub(crate) fn mount_targets(lab: &Lab, count: usize) -> Vec<String> {
    let targets: Vec<String> = (0..count).map(|number| format!("target-{number}")).collect();
    let mut pipeline = Filter::start(&mut lab.pipeline_command());
    for target in &targets {
        succeed(&pipeline.ask(&request(lab, "mount", KEEPER, target)));
    }
    pipeline.end();
    targets
}

/// A request that names its mount path, so that nobody has to guess it.
pub(crate) fn request(lab: &Lab, action: &str, job: i32, target: &str) -> Value {
    let mut request = lab.request(action, job, target);
    let path = lab.mount_point(target).display().to_string();
    request["backup_target"]["filesystem_export_mount_path"] = path.into();
    request
}

/// Only what succeeds is measured.
#[track_caller]
pub(crate) fn succeed(answer: &Value) {
    assert_eq!(answer["status"], "success", "{answer}");
}

/// Asks through the broker.
#[track_caller]
pub(crate) fn ask(peer: &Peer, queue: &str, request: &Value) -> Value {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("bench-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    peer.ask(queue, &id, request)
}
