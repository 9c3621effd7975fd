//! Wires that are cut: packets are dropped at the node, and nobody is told.

use dms_tests::{Dice, run};
use serde_json::json;

use super::{pick, seconds};
use crate::hub;
use crate::node::Node;
use crate::world::World;

pub(super) fn cut(world: &World, dice: &mut Dice) {
    let mut nodes: Vec<&Node> = world.nodes.iter().collect();
    nodes.push(&world.controller);
    let Some(node) = pick(dice, &nodes) else { return };
    let services = [
        ("broker", Some(hub::BROKER_PORT)),
        ("database", Some(world.hub.database_port)),
        ("storage", Some(hub::STORAGE_PORT)),
        ("all", None),
    ];
    let Some((name, port)) = pick(dice, &services) else { return };
    let (sent, received) = match port {
        Some(port) => (format!("tcp dport {port} drop"), format!("tcp sport {port} drop")),
        None => ("drop".into(), "drop".into()),
    };
    let rules = format!(
        "add table inet cut\n\
         add chain inet cut out {{ type filter hook output priority 0; }}\n\
         add chain inet cut in {{ type filter hook input priority 0; }}\n\
         add rule inet cut out oifname wire {sent}\nadd rule inet cut in iifname wire {received}\n"
    );
    let boot = node.boot_number();
    let fields = json!({"fault": "cut", "node": node.name, "from": name});
    world.hub.history.note("fault", fields.clone());
    let _stall = world.stall();
    run(&mut node.command("nft", &["-f", "-"]), rules.as_bytes()).expect(0);
    world.rest(seconds(dice, 5, 50));
    // With its namespace, the cut is gone. One that was cut twice is whole after the first.
    if node.boot_number() == boot {
        run(&mut node.command("nft", &["delete", "table", "inet", "cut"]), b"");
    }
    world.hub.history.note("fault-over", fields);
}
