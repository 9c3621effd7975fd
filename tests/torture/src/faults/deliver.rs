//! Messages that come more often than once, or not at all.

use std::fs;

use dms_tests::{Dice, Peer};
use serde_json::{Value, json};

use super::{pick, seconds};
use crate::ask::{Question, Way, word};
use crate::world::World;

/// A request that was answered with success is sent to its node once more: the same line, or, where
/// the ledger is not at the node, the same plan.
///
/// One without a plan is known by its id for good. A plan is known by its fence, which lies in the
/// node's memory: no message outlives both its expiration and a reboot, so it is not made to.
pub(super) fn again(world: &World, dice: &mut Dice) {
    let mut all = world.done();
    // What could do the most harm comes more often: an unmount that is late.
    if dice.below(2) == 0 {
        all.retain(|done| done.has_unmounted);
    }
    let Some(done) = pick(dice, &all) else { return };
    let question = &done.question;
    world.rest(seconds(dice, 0, 20));
    let node = &world.nodes[question.node];
    let Some(line) = line_of(world, question) else { return };
    let up = node.stay_up();
    if question.way == Way::Client && up.number != done.boot {
        return;
    }
    world.hub.history.note(
        "fault",
        json!({"fault": "duplicate", "node": node.name, "target": question.target,
            "id": question.id, "action": question.action, "job": question.job}),
    );
    let timeout = world.hub.options.timeout;
    let args = ["--timeout".to_owned(), timeout.to_string()];
    let mut command = world.controller.command("dms-call", &args);
    let id = format!("{}-again", question.id);
    let end = world.run(&mut command, &line, &id, timeout + 20.0);
    world.hub.history.note(
        "fault-over",
        json!({"fault": "duplicate", "node": node.name, "target": question.target,
            "id": question.id, "action": question.action, "word": word(&end.answer),
            "answer": end.answer}),
    );
}

/// What went to the node; `None` if nothing did.
fn line_of(world: &World, question: &Question) -> Option<String> {
    if question.way != Way::Client {
        return Some(world.line(question));
    }
    let text = fs::read_to_string(world.plan_file(&question.id)).ok()?;
    // The last one is what was done. A plan that leaves the mount to others is not sent, nor is an
    // answer from the journal.
    let line = text.lines().last()?;
    let plan = &serde_json::from_str::<Value>(line).ok()?["plan"]["decision"];
    [json!("mount"), json!("unmount")].contains(plan).then(|| format!("{line}\n"))
}

/// Somebody else consumes from a node's queue, acknowledges what comes, and answers nothing.
pub(super) fn steal(world: &World, dice: &mut Dice) {
    let Some(node) = pick(dice, &world.nodes) else { return };
    let fields = json!({"fault": "thief", "node": node.name});
    world.hub.history.note("fault", fields.clone());
    let _stall = world.stall();
    let thief = {
        let Some(broker) = world.hub.broker() else { return };
        Peer::server(&broker, &format!("dms.{}", node.name), Box::new(|_| None))
    };
    world.rest(seconds(dice, 3, 15));
    drop(thief);
    world.hub.history.note("fault-over", fields);
}
