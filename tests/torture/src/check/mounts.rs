//! Nothing is unmounted under who holds it, and nobody is forgotten.

use super::{Hold, NO_UNMOUNT, ONE_HOST, Violation, is_taken, went_down};
use crate::history::Event;
use crate::target::Kind;

/// A mount, from when it was there for certain until it may have been gone.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    node: String,
    target: String,
    name: String,
    first_seen: f64,
    last_seen: f64,
    gone: f64,
}

impl Life {
    /// Whether it was there, of this hold's target, all the time in between.
    pub(super) fn is_certain(&self, hold: &Hold, from: f64, to: f64) -> bool {
        self.node == hold.node
            && self.target == hold.target
            && self.first_seen <= from
            && to <= self.last_seen
    }
}

/// The mounts of a history.
pub(super) fn lives(events: &[Event]) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for event in events {
        if event.is("mounted") {
            lives.push(Life {
                node: event.text("node").to_owned(),
                target: event.text("target").to_owned(),
                name: event.text("mount").to_owned(),
                first_seen: event.t(),
                last_seen: f64::INFINITY,
                gone: f64::INFINITY,
            });
        } else if event.is("unmounted") {
            let mut open = lives.iter_mut().filter(|life| life.gone.is_infinite());
            let is_it = |life: &&mut Life| {
                event.is_at(&life.node, &life.target) && life.name == event.text("mount")
            };
            if let Some(life) = open.find(is_it) {
                life.last_seen = event.number("since");
                life.gone = event.t();
            }
        }
    }
    lives
}

pub(super) fn check(events: &[Event], holds: &[Hold]) -> Vec<Violation> {
    let lives = lives(events);
    let mut found = Vec::new();
    for hold in holds {
        found.extend(lives.iter().find_map(|life| under(events, hold, life)));
        found.extend(forgotten(events, hold));
    }
    found.extend(lives.iter().filter_map(|life| on_two(&lives, life)));
    found
}

/// A pool was on two hosts at once: each would write as if it were alone.
fn on_two(lives: &[Life], life: &Life) -> Option<Violation> {
    let is_pool = Kind::of(&life.target) == Kind::Pool;
    let other = lives.iter().filter(|_| is_pool).find(|other| {
        other.target == life.target
            && other.node != life.node
            && other.first_seen >= life.first_seen
            && other.first_seen < life.last_seen
    })?;
    Some(Violation {
        promise: ONE_HOST,
        text: format!("it came on {} while it was there", other.node),
        node: life.node.clone(),
        target: life.target.clone(),
        from: life.first_seen,
        to: other.first_seen,
        hold: String::new(),
    })
}

/// The job's mount was there when it was told yes, and gone before it had ended its work.
fn under(events: &[Event], hold: &Hold, life: &Life) -> Option<Violation> {
    let is_its = life.is_certain(hold, hold.told, hold.told) && life.gone <= hold.left;
    if !is_its || is_taken(events, &hold.node, &hold.target, hold.asked, life.gone) {
        return None;
    }
    let after = life.last_seen - hold.told;
    Some(Violation {
        promise: NO_UNMOUNT,
        text: format!("it was unmounted {after:.2} s after the job was told that it has it"),
        node: hold.node.clone(),
        target: hold.target.clone(),
        from: hold.told,
        to: life.gone,
        hold: hold.name.clone(),
    })
}

/// The first thing that a job hears when it asks to leave is that it has never been there.
fn forgotten(events: &[Event], hold: &Hold) -> Option<Violation> {
    let mut told = events.iter().filter(|event| {
        event.is("told") && event.text("hold") == hold.name && event.text("action") == "unmount"
    });
    let first = told.next()?;
    let is_forgotten = first.text("word") == "no_active_mount"
        && went_down(events, &hold.node, hold.asked, first.t()).is_none();
    is_forgotten.then(|| Violation {
        promise: NO_UNMOUNT,
        text: "the job was told yes, and the ledger does not know it".into(),
        node: hold.node.clone(),
        target: hold.target.clone(),
        from: hold.told,
        to: first.t(),
        hold: hold.name.clone(),
    })
}
