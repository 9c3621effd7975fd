//! What was promised, held against a history. It runs nothing and looks at nothing else, so that a
//! history that was kept can be checked again.
//!
//! Where an outcome is unknown, it says nothing of it: only what a job was told yes to, until it asks
//! to leave, is promised. What takes a mount away from the outside, the end of its daemon or of its
//! node, is known from the history, and ends that promise; never the one that nothing is written
//! beside the target.

mod answers;
mod data;
mod holds;
mod mounts;
mod remains;
#[cfg(test)]
mod tests;

use crate::history::Event;

pub(crate) use holds::{Hold, read as holds};

/// Something that must not be.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) promise: &'static str,
    pub(crate) text: String,
    pub(crate) node: String,
    pub(crate) target: String,
    /// From when to when it can be seen.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The hold that it is about.
    pub(crate) hold: String,
}

/// The promises, as they are called in reports.
pub(crate) const TO_THE_TARGET: &str = "a job that was told yes writes to its target";
pub(crate) const NO_UNMOUNT: &str = "nothing is unmounted under who holds it";
pub(crate) const ONE_HOST: &str = "one host at a time has a pool";
pub(crate) const DATA: &str = "what was closed before a good unmount is in the bucket";
pub(crate) const ANSWERED: &str = "each request is answered within its bound";
pub(crate) const NOTHING_LEFT: &str = "ledger and kernel agree, and nothing is left over";
pub(crate) const SECRETS: &str = "no secret is told";
pub(crate) const WEIGHT: &str = "descriptors, memory and processes are back";

/// All that is wrong with a history.
pub(crate) fn check(events: &[Event]) -> Vec<Violation> {
    let holds = holds::read(events);
    let mut found = holds::check(events, &holds);
    found.extend(mounts::check(events, &holds));
    found.extend(data::check(events, &holds));
    found.extend(answers::check(events, &holds));
    found.extend(remains::check(events));
    first_of_each(found)
}

/// A job that has lost its mount writes on: the first time tells all.
fn first_of_each(mut found: Vec<Violation>) -> Vec<Violation> {
    found.sort_by(|a, b| a.to.total_cmp(&b.to));
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|one| one.hold.is_empty() || seen.insert((one.promise, one.hold.clone())));
    found
}

/// Whether something from the outside may have taken the mount of this target away at some time in
/// between: its daemon was killed, or its node went down.
pub(crate) fn is_taken(events: &[Event], node: &str, target: &str, from: f64, to: f64) -> bool {
    went_down(events, node, from, to).is_some() || daemon_died(events, node, target, from, to)
}

/// When the node went down in between, first.
pub(crate) fn went_down(events: &[Event], node: &str, from: f64, to: f64) -> Option<f64> {
    let mut downs = events.iter().filter(|event| event.is("down") && event.text("node") == node);
    downs.find(|down| (from..=to).contains(&down.t())).map(Event::t)
}

/// How long a process that was killed may take to be gone, on a machine that is busy.
const DYING: f64 = 2.0;

/// Whether the daemon may have been dying in between.
pub(crate) fn daemon_died(events: &[Event], node: &str, target: &str, from: f64, to: f64) -> bool {
    events.iter().any(|event| {
        // Who keeps its words may end, and the daemon goes on.
        let is_it = event.is("fault") && event.text("fault") == "kill";
        is_it
            && event.text("process") == "s3fs"
            && event.text("node") == node
            && [target, "?"].contains(&event.text("target"))
            && event.t() <= to
            && killed_by(events, event) + DYING >= from
    })
}

/// When the signal had certainly been sent.
fn killed_by(events: &[Event], kill: &Event) -> f64 {
    let mut over = events.iter().filter(|event| event.is("fault-over") && event.t() >= kill.t());
    let is_its = |event: &&Event| {
        event.text("fault") == "kill" && event.number("pid").eq(&kill.number("pid"))
    };
    over.find(is_its).map_or(f64::INFINITY, Event::t)
}
