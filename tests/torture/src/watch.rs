//! What the kernel has mounted on each node, and since when: the truth that answers are held against.
//!
//! It looks again and again, so a change lies between two looks, and both are put down: what is said
//! of it must hold for the one and for the other.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::clock::now;
use crate::node::Node;
use crate::world::World;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(6);

/// A mount, by what the kernel calls it.
type Key = (String, String, String);

/// Looks at one node until it is told to end.
pub(crate) fn watch(world: &World, node: &Node, is_over: &dyn Fn() -> bool) {
    let mut there: BTreeSet<Key> = BTreeSet::new();
    let mut last = now();
    while !is_over() {
        let looked = now();
        let boot = node.boot_number();
        let found = mounts(node);
        for key in there.difference(&found) {
            note(world, node, "unmounted", key, last, boot);
        }
        for key in found.difference(&there) {
            note(world, node, "mounted", key, last, boot);
        }
        there = found;
        last = looked;
        thread::sleep(INTERVAL);
    }
}

fn note(world: &World, node: &Node, event: &str, key: &Key, since: f64, boot: u32) {
    let (target, id, device) = key;
    let fields = json!({"node": node.name, "target": target, "mount": format!("{id}/{device}"),
        "since": since, "boot": boot});
    world.hub.history.note(event, fields);
}

/// What is mounted below the node's base, now.
fn mounts(node: &Node) -> BTreeSet<Key> {
    let base = format!("{}/", node.path("mnt").display());
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", node.init())).unwrap_or_default();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let Some(path) = words.get(4).and_then(|path| path.strip_prefix(&*base)) {
            // The datasets of a pool are mounted below its target's mount point.
            let target = path.split('/').next().unwrap_or(path);
            found.insert((target.to_owned(), words[0].to_owned(), words[2].to_owned()));
        }
    }
    found
}

/// The targets that are mounted on a node.
pub(crate) fn mounted(node: &Node) -> Vec<String> {
    mounts(node).into_iter().map(|(target, ..)| target).collect()
}
