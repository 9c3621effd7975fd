//! What a job wrote and closed before a good unmount is in the bucket, as it was written.

use std::collections::HashMap;

use super::{DATA, Hold, Violation, daemon_died, went_down};
use crate::history::Event;

pub(super) fn check(events: &[Event], holds: &[Hold]) -> Vec<Violation> {
    let objects = objects(events);
    let mut found = Vec::new();
    for hold in holds {
        let Some(unmounted) = hold.unmounted else { continue };
        for write in closed(hold) {
            let there = objects.get(&(&*hold.target, write.text("file"))).copied();
            let begun = write.number("begun");
            // A daemon that is killed takes with it what it has not sent.
            if there == Some(write.text("sum"))
                || daemon_died(events, &hold.node, &hold.target, begun, unmounted)
                || went_down(events, &hold.node, begun, unmounted).is_some()
            {
                continue;
            }
            let what = if there.is_some() { "is another one" } else { "is not there" };
            found.push(Violation {
                promise: DATA,
                text: format!("{} was closed, and its object {what}", write.text("file")),
                node: hold.node.clone(),
                target: hold.target.clone(),
                from: begun,
                to: unmounted,
                hold: hold.name.clone(),
            });
        }
    }
    found
}

/// The writes of a hold that went well.
pub(crate) fn closed(hold: &Hold) -> impl Iterator<Item = &Event> {
    hold.events.iter().filter(|event| event.is("write") && event.flag("ok"))
}

/// The sums of what is in the buckets, by target and name.
fn objects(events: &[Event]) -> HashMap<(&str, &str), &str> {
    let objects = events.iter().filter(|event| event.is("object"));
    let there = objects.filter(|event| !event.text("sum").is_empty());
    there.map(|event| ((event.text("target"), event.text("file")), event.text("sum"))).collect()
}
