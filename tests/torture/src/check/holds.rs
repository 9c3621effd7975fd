//! While a job has a mount that it was told it has, what it writes goes to the target.

use std::collections::HashMap;

use super::{NO_UNMOUNT, TO_THE_TARGET, Violation, is_taken, mounts};
use crate::history::Event;
use crate::target::Kind;

/// A job that was told yes, until it began to ask to leave.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) target: String,
    /// When it asked for the mount, and when it was told.
    pub(crate) asked: f64,
    pub(crate) told: f64,
    /// When it had ended its work, or its node went down.
    pub(crate) left: f64,
    /// When it was told that its unmount was done.
    pub(crate) unmounted: Option<f64>,
    /// Its writes, and its reads.
    pub(crate) events: Vec<Event>,
}

/// The holds of a history.
pub(crate) fn read(events: &[Event]) -> Vec<Hold> {
    let mut holds: HashMap<String, Hold> = HashMap::new();
    for event in events.iter().filter(|event| event.is("hold")) {
        let (node, target) = (event.text("node").to_owned(), event.text("target").to_owned());
        let (asked, told) = (event.number("asked"), event.number("told"));
        let down = super::went_down(events, &node, asked, f64::INFINITY);
        let left = down.unwrap_or(f64::INFINITY);
        let (unmounted, name) = (None, event.text("hold").to_owned());
        let hold = Hold { name, node, target, asked, told, left, unmounted, events: Vec::new() };
        holds.insert(hold.name.clone(), hold);
    }
    for event in events {
        let Some(hold) = holds.get_mut(event.text("hold")) else { continue };
        if event.is("left") {
            // dms-with asks to leave by itself: what counts is when its command had ended.
            let ended = event.value()["at"].as_f64().unwrap_or(event.t());
            hold.left = hold.left.min(ended);
        } else if event.is("told") && event.text("word") == "success" {
            let is_end = ["unmount", "with"].contains(&event.text("action"));
            hold.unmounted = is_end.then_some(event.t()).or(hold.unmounted);
        } else if event.is("write") || event.is("read") {
            hold.events.push(event.clone());
        }
    }
    let mut holds: Vec<Hold> = holds.into_values().collect();
    holds.sort_by(|a, b| a.told.total_cmp(&b.told));
    holds
}

// What the kernel says where nothing is mounted: the mount point is not there, or is sealed.
const NOTHING_THERE: [f64; 5] = [1.0, 2.0, 13.0, 20.0, 30.0];
// What it says where a daemon is gone: ECONNABORTED, ENOTCONN, ESHUTDOWN.
const NOBODY_THERE: [f64; 3] = [103.0, 107.0, 108.0];
// What it says where it was told to give up what waits: EIO, and ERESTARTSYS, which is not meant for
// programs. A hard mount waits for its server, and nobody else has told it to.
const GIVEN_UP: [f64; 2] = [5.0, 512.0];

pub(super) fn check(events: &[Event], holds: &[Hold]) -> Vec<Violation> {
    let lives = mounts::lives(events);
    let mut found = Vec::new();
    for hold in holds {
        for event in &hold.events {
            found.extend(look(events, &lives, hold, event));
        }
    }
    found
}

fn look(events: &[Event], lives: &[mounts::Life], hold: &Hold, event: &Event) -> Option<Violation> {
    let (begun, t) = (event.number("begun"), event.t());
    let file = event.text("file");
    let violation = |promise, text| {
        Some(Violation {
            promise,
            text,
            node: hold.node.clone(),
            target: hold.target.clone(),
            from: hold.told,
            to: t,
            hold: hold.name.clone(),
        })
    };
    if event.flag("bare") {
        let text = format!("{file} was written into the bare directory");
        return violation(TO_THE_TARGET, text);
    }
    let errno = event.number("errno");
    let is_late = begun > hold.left;
    if errno == 0.0 || is_late || is_taken(events, &hold.node, &hold.target, hold.asked, t) {
        if event.is("read") && errno == 0.0 && !event.flag("same") {
            return violation(TO_THE_TARGET, format!("{file} was read back, and is not the same"));
        }
        return None;
    }
    if NOBODY_THERE.contains(&errno) {
        let text = format!("{file}: errno {errno}: its daemon is gone, and nobody has killed it");
        return violation(NO_UNMOUNT, text);
    }
    if GIVEN_UP.contains(&errno) && Kind::of(&hold.target) == Kind::Export {
        let text = format!("{file}: errno {errno}: somebody has ended what waited for the server");
        return violation(NO_UNMOUNT, text);
    }
    let was_there = lives.iter().any(|life| life.is_certain(hold, begun, t));
    if NOTHING_THERE.contains(&errno) && !was_there {
        return violation(TO_THE_TARGET, format!("{file}: errno {errno}: nothing is mounted"));
    }
    None
}
