//! What is there at the end: ledger and kernel agree, nothing is left over, no secret was told, and
//! nothing has grown.

use serde_json::Value;

use super::{NOTHING_LEFT, SECRETS, Violation, WEIGHT};
use crate::history::Event;

/// By how much a listener may be larger than when it began: descriptors, and KiB.
const DESCRIPTORS: f64 = 4.0;
const MEMORY: f64 = 16.0 * 1024.0;

pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Vec::new();
    for event in events {
        let mut say = |promise, text: String| found.push(violation(event, promise, text));
        if event.is("state") {
            states(event).into_iter().for_each(|text| say(NOTHING_LEFT, text));
        } else if event.is("secret") {
            say(SECRETS, format!("{}... is in {}", event.text("begins"), event.text("place")));
        } else if event.is("weight") && event.text("when") == "end" {
            let mut begun = events.iter().filter(|one| one.is("weight"));
            let begun = begun.find(|one| one.text("node") == event.text("node"));
            weights(begun.unwrap_or(event), event).into_iter().for_each(|text| say(WEIGHT, text));
        }
    }
    // A run that was cut short has shown nothing.
    if !events.iter().any(|event| event.is("looked"))
        && let Some(last) = events.last()
    {
        found.push(violation(last, NOTHING_LEFT, "the history ends before the run does".into()));
    }
    found
}

fn violation(event: &Event, promise: &'static str, text: String) -> Violation {
    Violation {
        promise,
        text,
        node: event.text("node").to_owned(),
        target: String::new(),
        from: event.t() - 30.0,
        to: event.t(),
        hold: String::new(),
    }
}

fn states(state: &Event) -> Vec<String> {
    let mut found = Vec::new();
    for (field, what) in [
        ("mounts", "is still mounted"),
        ("processes", "still runs"),
        ("files", "is left"),
        ("locked", "is locked"),
        ("bindings", "is in the ledger, and its job has left"),
        ("operations", "is pending"),
        ("sessions", "is still there"),
    ] {
        let list = state.value()[field].as_array().cloned().unwrap_or_default();
        found.extend(list.iter().map(|one| format!("{} {what}", plain(one))));
    }
    if !state.flag("stopped") {
        found.push("the listener does not end".to_owned());
    }
    if state.number("audit") != 0.0 {
        found.push(format!("the audit says: {}", state.text("audit_words").trim()));
    }
    found
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn weights(begun: &Event, ended: &Event) -> Vec<String> {
    let mut found = Vec::new();
    for (field, more) in [("descriptors", DESCRIPTORS), ("memory", MEMORY)] {
        let (before, now) = (begun.number(field), ended.number(field));
        if now > before + more {
            found.push(format!("the listener's {field}: {before} at the start, {now} at the end"));
        }
    }
    let count = |event: &Event| event.value()["processes"].as_array().map_or(0, Vec::len);
    if count(ended) > count(begun) {
        let list = &ended.value()["processes"];
        found.push(format!("{} processes, then {}: {list}", count(begun), count(ended)));
    }
    found
}
