//! Each request is answered, or ends without an answer because its asker was killed, within its bound.

use super::{ANSWERED, Hold, Violation, went_down};
use crate::history::Event;

pub(super) fn check(events: &[Event], _holds: &[Hold]) -> Vec<Violation> {
    let mut found = Vec::new();
    for event in events {
        let text = if event.is("stuck") {
            format!("its unmount was never done; the last answer was {}", event.text("word"))
        } else if event.is("told") && event.flag("late") {
            format!("{} had no answer after {:.1} s", event.text("id"), event.number("seconds"))
        } else if event.is("told") && is_silent(events, event) {
            format!("{} was not answered: {}", event.text("id"), event.text("how"))
        } else {
            continue;
        };
        found.push(Violation {
            promise: ANSWERED,
            text,
            node: event.text("node").to_owned(),
            target: event.text("target").to_owned(),
            from: event.t() - event.number("seconds"),
            to: event.t(),
            hold: event.text("hold").to_owned(),
        });
    }
    found
}

/// It ended by itself, and said nothing.
fn is_silent(events: &[Event], told: &Event) -> bool {
    let since = told.t() - told.number("seconds");
    told.text("word") == "none"
        && told.text("way") != "dms-with"
        && !told.flag("signalled")
        && went_down(events, told.text("node"), since, told.t()).is_none()
}
