//! Processes that are killed or stand still.

use dms_tests::Dice;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{pick, seconds};
use crate::node::{Found, Node};
use crate::world::World;

/// What may be hit. Jobs themselves, the shells that only start things and what the tests bring
/// along are not.
const STAGES: [&str; 12] = [
    "dms-listen",
    "dms-lock",
    "dms-call",
    "dms-with",
    "dms-ledger",
    "plan",
    "commit",
    "dms-mount",
    "mount",
    "umount",
    "zpool",
    "sh",
];

/// What a mount needs to go on.
const DAEMONS: [&str; 2] = ["s3fs", "drain"];

/// What stands for ZFS in a node's kernel: it may be slow, but it ends with its node only.
const ZFS: &str = "zfs-fuse";

/// One process, of a kind that is there now: else the many would hide the few.
fn choose<'a>(world: &'a World, dice: &mut Dice, kinds: &[&str]) -> Option<(&'a Node, Found)> {
    let mut nodes: Vec<&Node> = world.nodes.iter().collect();
    nodes.push(&world.controller);
    let node = *pick(dice, &nodes)?;
    let found = node.all_processes();
    let mut kinds = kinds.to_vec();
    kinds.retain(|kind| found.iter().any(|one| one.kind == *kind));
    let kind = *pick(dice, &kinds)?;
    let of_kind: Vec<&Found> = found.iter().filter(|one| one.kind == kind).collect();
    pick(dice, &of_kind).map(|one| (node, (*one).clone()))
}

/// Puts down what is about to be hit. A daemon's end takes a mount away.
fn note(world: &World, fault: &str, node: &Node, victim: &Found) {
    let is_daemon = DAEMONS.contains(&victim.kind);
    let target = is_daemon.then(|| node.target_of(victim).unwrap_or_else(|| "?".into()));
    world.hub.history.note(
        "fault",
        json!({"fault": fault, "node": node.name, "process": victim.kind, "pid": victim.pid,
            "target": target}),
    );
}

pub(super) fn kill_one(world: &World, dice: &mut Dice) {
    kill(world, dice, &STAGES);
}

pub(super) fn kill_daemon(world: &World, dice: &mut Dice) {
    kill(world, dice, &DAEMONS);
}

fn kill(world: &World, dice: &mut Dice, kinds: &[&str]) {
    if let Some((node, victim)) = choose(world, dice, kinds) {
        note(world, "kill", node, &victim);
        victim.signal(Signal::SIGKILL);
        over(world, "kill", node, &victim);
    }
}

pub(super) fn stop_one(world: &World, dice: &mut Dice) {
    let time = seconds(dice, 2, 30);
    if let Some((node, victim)) = choose(world, dice, &[&STAGES[..], &DAEMONS, &[ZFS]].concat()) {
        note(world, "stop", node, &victim);
        let _stall = world.stall();
        victim.signal(Signal::SIGSTOP);
        world.rest(time);
        victim.signal(Signal::SIGCONT);
        over(world, "stop", node, &victim);
    }
}

fn over(world: &World, fault: &str, node: &Node, victim: &Found) {
    world.hub.history.note(
        "fault-over",
        json!({"fault": fault, "node": node.name, "process": victim.kind, "pid": victim.pid}),
    );
}
