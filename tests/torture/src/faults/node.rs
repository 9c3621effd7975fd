//! What happens to a node as a whole: its listener restarted or there twice, its clock, its power;
//! and, beside all that, the timer that brings it and its ledger together.

use std::thread::sleep;
use std::time::Duration;

use dms_tests::Dice;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{pick, seconds};
use crate::node::{Found, Node, Role};
use crate::settle;
use crate::world::World;

fn fields(fault: &str, node: &Node) -> serde_json::Value {
    json!({"fault": fault, "node": node.name})
}

/// As systemctl restart: it may finish what it does.
pub(super) fn restart(world: &World, dice: &mut Dice) {
    let Some(node) = pick(dice, &world.nodes) else { return };
    let before: Vec<Found> = node.processes_of("dms-listen");
    if before.is_empty() {
        return;
    }
    world.hub.history.note("fault", fields("restart", node));
    for listener in &before {
        listener.signal(Signal::SIGTERM);
    }
    world.hub.history.note("fault-over", fields("restart", node));
}

/// By mistake, somebody starts a second one; its end is a good one or a bad one.
pub(super) fn twins(world: &World, dice: &mut Dice) {
    let Some(node) = pick(dice, &world.nodes) else { return };
    world.hub.history.note("fault", fields("twins", node));
    let mut twin = node.listener();
    world.rest(seconds(dice, 20, 80));
    let signal = if dice.below(2) == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
    // It may have ended before us, with its node for example.
    while matches!(twin.try_wait(), Ok(None)) {
        if let Some(pid) = child_of(twin.id()) {
            Found { pid, command: String::new(), kind: "dms-listen" }.signal(signal);
            break;
        }
        sleep(Duration::from_millis(10));
    }
    let _ = twin.wait();
    world.hub.history.note("fault-over", fields("twins", node));
}

/// What has been started in a node.
fn child_of(pid: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Days ahead, days behind, or a little off.
const SHIFTS: [&str; 5] = ["+3d", "-3d", "+1h", "-1h", "-30s"];

pub(super) fn shift_clock(world: &World, dice: &mut Dice) {
    let mut nodes: Vec<&Node> = world.nodes.iter().collect();
    nodes.push(&world.controller);
    let Some(node) = pick(dice, &nodes) else { return };
    let Some(shift) = pick(dice, &SHIFTS) else { return };
    let begun = json!({"fault": "clock", "node": node.name, "shift": shift});
    world.hub.history.note("fault", begun);
    node.set_clock(Some(shift));
    // The listener, too, and all that it starts.
    if dice.below(2) == 0 {
        for listener in node.processes_of("dms-listen") {
            listener.signal(Signal::SIGTERM);
        }
    }
    world.rest(seconds(dice, 30, 80));
    node.set_clock(None);
    world.hub.history.note("fault-over", fields("clock", node));
}

pub(super) fn reboot(world: &World, dice: &mut Dice) {
    if let Some(node) = pick(dice, &world.nodes) {
        cut_power(world, node);
    }
}

/// Its power fails, and comes back.
pub(crate) fn cut_power(world: &World, node: &Node) {
    let _stall = world.stall();
    world.hub.history.note("fault", fields("reboot", node));
    node.reboot(&world.hub, |command| {
        // Where the ledger is at the controllers, theirs is the turn, see below.
        if node.role != Role::Act {
            let _ = command("dms-reconcile").output();
        }
    });
    if node.role == Role::Act {
        sleep(Duration::from_millis(500));
        settle::reconcile(world, node);
    }
    world.hub.history.note("fault-over", fields("reboot", node));
}

pub(super) fn reconcile(world: &World, dice: &mut Dice) {
    if let Some(node) = pick(dice, &world.nodes) {
        world.hub.history.note("fault", fields("reconcile", node));
        let said = settle::reconcile(world, node);
        let over = json!({"fault": "reconcile", "node": node.name, "code": said.code});
        world.hub.history.note("fault-over", over);
    }
}
