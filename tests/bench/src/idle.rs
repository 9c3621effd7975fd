//! What a node costs that has nothing to do: a listener, and one pipeline that is kept running.

use std::fs;
use std::thread;
use std::time::Duration;

use dms_tests::{Broker, Lab, Listener, Peer, eventually, wakes};

use crate::consumer::Consumer;
use crate::memory::share;
use crate::stage::{ask, database, mount_targets, node, request, succeed};
use crate::table::{Limit, Table};

/// How long it is watched. The broker's heartbeats come every 60 s, two of them a period.
const WATCHED: Duration = Duration::from_secs(20);

pub(crate) fn measure(table: &mut Table) {
    for lab in [node(Some(&database())), node(None)] {
        let engine = if lab.is_on_server() { "MariaDB" } else { "SQLite" };
        idle(table, engine, &lab);
    }
}

#[allow(clippy::cast_precision_loss)]
fn idle(table: &mut Table, engine: &str, lab: &Lab) {
    let broker = Broker::start();
    mount_targets(lab, 1);
    let listener = Listener::start(lab, &broker, &["--", "dms-pipeline"]);
    let peer = Peer::client(&broker);
    for action in ["mount", "unmount"] {
        succeed(&ask(&peer, &lab.queue(), &request(lab, action, 2, "target-0")));
    }
    let bare = Consumer::start(&broker, "bare", None);
    eventually("the bare consumer serves", || {
        broker.queue("bare").is_some_and(|queue| queue.consumers == 1)
    });
    let processes = belonging_to(listener.pid());
    let count = || processes.iter().map(|(pid, _)| wakes(*pid)).sum::<u64>();
    let before = count();
    thread::sleep(WATCHED);
    let woken = (count() - before) as f64 / WATCHED.as_secs_f64();
    let total: f64 = processes.iter().map(|(pid, _)| share(*pid)).sum();
    let what = format!("an idle node: listener and a warm pipeline, {engine}, PSS");
    table.figure(&what, total, "MiB", Limit::AtMost(25.0));
    for (pid, command) in &processes {
        let words: Vec<&str> = command.split(' ').take(3).collect();
        let name = words.join(" ").replace(&format!("{}/", dms_tests::bin_dir().display()), "");
        table.figure(&format!("  {name}"), share(*pid), "MiB", Limit::None);
    }
    table.figure("  wake-ups", woken, "a second", Limit::AtMost(0.2));
    let (ours, theirs) = (share(listener.pid()), share(bare.pid()));
    let what = "  the listener's memory";
    table.figures(what, (ours, theirs), "MiB", "a bare amiquip consumer's", Limit::None);
}

/// The process and all that it has started, with their command lines. Daemons of mounts are no
/// children of anybody's: they are their targets' own price.
fn belonging_to(pid: i32) -> Vec<(i32, String)> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let mut found = vec![(pid, command)];
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    for child in children.flat_map(|list| numbers(&list)) {
        found.extend(belonging_to(child));
    }
    found
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
