//! The end of a run: the faults have stopped, the jobs have left; what is there now?

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dms_tests::{Run, run};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::ask::client_pipeline;
use crate::history;
use crate::node::{Found, Node, Role, weight_of};
use crate::target::{self, Kind};
use crate::watch::mounted;
use crate::witness::sum;
use crate::world::{World, secrets};

/// Ledger and node are brought together, as the unit of that name does it, or, where the ledger is at
/// the controllers, as they have to.
pub(crate) fn reconcile(world: &World, node: &Node) -> Run {
    if node.role != Role::Act {
        return node.shell("dms-reconcile");
    }
    let list = node.shell("dms-mount list");
    let args = ["reconcile", "--host", &node.name];
    let requests = run(&mut world.controller.command("dms-ledger", &args), list.stdout.as_bytes());
    if requests.stdout.is_empty() {
        return requests;
    }
    let script = client_pipeline(&world.plan_file("reconcile"));
    let args = ["--each", "--", "sh", "-c", &script];
    run(&mut world.controller.command("dms-lock", &args), requests.stdout.as_bytes())
}

/// What ledger and node disagree in.
fn audit(world: &World, node: &Node) -> Run {
    let list = node.shell("dms-mount list");
    let args = ["audit", "--host", &node.name];
    run(&mut ledger_of(world, node).command("dms-ledger", &args), list.stdout.as_bytes())
}

/// Where the ledger of a node can be read.
fn ledger_of<'a>(world: &'a World, node: &'a Node) -> &'a Node {
    if node.role == Role::Act { &world.controller } else { node }
}

/// How many descriptors and how much memory a node's listener has, and what else runs there.
pub(crate) fn weigh(world: &World, node: &Node, when: &str) {
    let listener = node.processes_of("dms-listen").first().map(|one| weight_of(one.pid));
    let (descriptors, memory) = listener.unwrap_or_default();
    let others: Vec<String> = node.processes().into_iter().map(|one| one.command).collect();
    world.hub.history.note(
        "weight",
        json!({"node": node.name, "when": when, "descriptors": descriptors, "memory": memory,
            "processes": others}),
    );
}

/// Brings all together, and puts down what is there.
pub(crate) fn settle(world: &World) {
    for node in &world.nodes {
        reconcile_for_good(world, node);
    }
    for node in &world.nodes {
        look_at(world, node);
    }
    let controller = &world.controller;
    wait(15, || controller.processes().is_empty());
    no_node(world, "controller", &controller.processes(), &locked(controller), &[]);
    // The session of a node that lost its power ends when the database has had enough of waiting.
    let with_database = world.nodes.iter().all(|node| node.boot_number() == 1);
    let mut left = Vec::new();
    // The broker knows by the heartbeats that did not come.
    wait(40, || {
        left = world.hub.left_over(with_database);
        left.is_empty()
    });
    no_node(world, "hub", &[], &[], &left);
    objects(world);
    look_for_secrets(world);
}

/// More than once, as its timer has it: the listener may still be on its way back to the broker.
fn reconcile_for_good(world: &World, node: &Node) {
    for round in 1..=3 {
        let said = reconcile(world, node);
        let fields = json!({"node": node.name, "round": round, "code": said.code,
            "said": said.stdout, "words": said.stderr});
        world.hub.history.note("reconciled", fields);
        if said.code == 0 {
            break;
        }
    }
}

fn look_at(world: &World, node: &Node) {
    // Filters that have nothing to do end by themselves.
    wait(20, || node.processes().iter().all(|one| one.kind == "dms-listen" || is_daemon(one)));
    weigh(world, node, "end");
    let audit = audit(world, node);
    let listens_no_more = node.stop_listening();
    wait(15, || node.processes().iter().all(is_daemon));
    // One that is about to end does that soon.
    wait(2, || node.processes().is_empty());
    let mounts = [mounted(node), node.imported()].concat();
    let fields = json!({"node": node.name, "mounts": mounts, "stopped": listens_no_more,
        "processes": node.processes().iter().map(|one| &*one.command).collect::<Vec<_>>(),
        "files": files(node), "locked": locked(node), "bindings": bindings(world, node),
        "operations": operations(world, node), "audit": audit.code,
        "audit_words": format!("{}{}", audit.stdout, audit.stderr)});
    world.hub.history.note("state", fields);
}

/// What is there where nothing is mounted.
fn no_node(world: &World, name: &str, left: &[Found], locked: &[String], sessions: &[String]) {
    let left: Vec<&str> = left.iter().map(|one| &*one.command).collect();
    let fields = json!({"node": name, "mounts": [], "stopped": true, "processes": left,
        "files": [], "locked": locked, "bindings": [], "operations": [], "audit": 0,
        "sessions": sessions});
    world.hub.history.note("state", fields);
}

/// What stays for as long as its mount does.
fn is_daemon(process: &Found) -> bool {
    ["s3fs", "drain"].contains(&process.kind)
}

fn wait(seconds: u64, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !is_so() && Instant::now() < end {
        sleep(Duration::from_millis(20));
    }
}

/// What is recorded of mounts that are not there.
fn files(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["dms/mounts", "dms/s3"] {
        for entry in fs::read_dir(node.inside(dir)).into_iter().flatten().flatten() {
            found.push(format!("{dir}/{}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// The lock files that somebody holds.
fn locked(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["lock", "lock/life", "dms/act", "dms/pool"] {
        for entry in fs::read_dir(node.inside(dir)).into_iter().flatten().flatten() {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let file = File::open(entry.path()).ok().filter(|_| is_file);
            let held = file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
            if held.is_some_and(|held| held.is_err()) {
                found.push(format!("{dir}/{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    found
}

fn rows(world: &World, node: &Node, args: &[&str]) -> Vec<Value> {
    let all = [args, &["--json", "--host", &node.name]].concat();
    let said = run(&mut ledger_of(world, node).command("dms-ledger", &all), b"");
    if said.code == 0 { said.lines() } else { vec![json!({"unable": said.to_string()})] }
}

fn bindings(world: &World, node: &Node) -> Vec<Value> {
    rows(world, node, &["list"])
}

/// The operations that are still pending.
fn operations(world: &World, node: &Node) -> Vec<Value> {
    rows(world, node, &["history", "--status", "pending", "--limit", "1000"])
}

/// What is in the buckets, pools and exports of all that was written and closed.
fn objects(world: &World) {
    let mut opened = HashMap::new();
    for node in &world.nodes {
        let targets = target::of_node(&world.hub.options, node);
        for pool in targets.into_iter().filter(|name| Kind::of(name) == Kind::Pool) {
            // The shared one is there once, whoever wrote to it.
            opened.entry(pool.clone()).or_insert_with(|| {
                node.open_pool(&world.hub, &pool);
                node.opened(&pool)
            });
        }
    }
    let events = history::read(world.hub.history.path()).unwrap_or_default();
    for event in events.iter().filter(|event| event.is("write") && event.flag("ok")) {
        let (target, file) = (event.text("target"), event.text("file"));
        let path = match Kind::of(target) {
            Kind::Bucket => world.hub.object(target, file),
            Kind::Pool => opened[target].join(file),
            Kind::Export => world.hub.exported(target, file),
        };
        let there = fs::read(path).ok().map(|bytes| sum(&bytes));
        let fields = json!({"target": target, "file": file, "sum": there});
        world.hub.history.note("object", fields);
    }
}

/// Every place where a secret might be read that is not made for it.
fn look_for_secrets(world: &World) {
    let mut looked = 0;
    let mut look = |place: &str, text: &[u8]| {
        looked += 1;
        for secret in secrets() {
            if text.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                world.hub.history.note("secret", json!({"place": place, "begins": &secret[..6]}));
            }
        }
    };
    let history = fs::read(world.hub.history.path()).unwrap_or_default();
    look("the answers", &history);
    look("the broker's log", world.hub.broker_log().as_bytes());
    look("the rows of the server's ledger", world.hub.rows().as_bytes());
    let mut dirs = vec![world.controller.path("words")];
    for node in &world.nodes {
        dirs.extend([node.path("logs"), node.path("state"), node.inside("lock")]);
        dirs.extend([node.inside("dms/mounts"), node.inside("dms/s3")]);
    }
    for dir in dirs {
        for file in files_of(&dir) {
            look(&file.0, &file.1);
        }
    }
    world.hub.history.note("looked", json!({"places": looked}));
}

fn files_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| Some((path.display().to_string(), fs::read(&path).ok()?));
    let is_for_it = |path: &Path| path.extension().is_some_and(|kind| kind == "cred");
    let paths = entries.map(|entry| entry.path()).filter(|path| !is_for_it(path));
    paths.filter_map(read).collect()
}
