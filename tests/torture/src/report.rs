//! What a run has found, for people: figures, and of each violation the shortest history that shows
//! it, with the words of the requests in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::check::{Hold, Violation, daemon_died};
use crate::history::Event;

/// How many lines of a history, and of words, are shown of one violation.
const LINES: usize = 40;
/// Of how many violations the history is shown.
const SHOWN: usize = 3;

/// What happened, in numbers.
pub(crate) fn figures(events: &[Event], holds: &[Hold]) -> String {
    let told: Vec<&Event> = events.iter().filter(|event| event.is("told")).collect();
    let mut text = requests(events, holds, &told);
    text += &data(events, holds);
    let _ =
        writeln!(text, "answers: {}", tally(told.iter().map(|one| one.text("word").to_owned())));
    let faults = events.iter().filter(|event| event.is("fault"));
    let _ = writeln!(text, "faults: {}", tally(faults.clone().map(kind_of)));
    let _ = writeln!(text, "in detail: {}", tally(faults.map(name_of)));
    text
}

fn requests(events: &[Event], holds: &[Hold], told: &[&Event]) -> String {
    let count = |event: &str| events.iter().filter(|one| one.is(event)).count();
    let jobs: BTreeSet<String> = told.iter().map(|one| one.number("job").to_string()).collect();
    // What dms-with takes is mostly its command's time.
    let plain = told.iter().filter(|one| one.text("action") != "with");
    let longest = plain.max_by(|a, b| a.number("seconds").total_cmp(&b.number("seconds")));
    let longest = longest.map_or_else(String::new, |one| {
        format!("{:.1} s ({}, {})", one.number("seconds"), one.text("id"), one.text("word"))
    });
    format!(
        "{} jobs, {} holds, {} requests, {} mounts, {} unmounts, {} reboots, {} of them as zfs-fuse hung; \
         longest wait {longest}\n",
        jobs.len(),
        holds.len(),
        told.len(),
        count("mounted"),
        count("unmounted"),
        count("down"),
        count("hung"),
    )
}

fn data(events: &[Event], holds: &[Hold]) -> String {
    let seen: Vec<&Event> = holds.iter().flat_map(|hold| &hold.events).collect();
    let of = |event: &str, is_good: bool| {
        let field = if event == "write" { "ok" } else { "same" };
        seen.iter().filter(|one| one.is(event) && one.flag(field) == is_good).count()
    };
    let lost = |hold: &&Hold| daemon_died(events, &hold.node, &hold.target, hold.asked, hold.left);
    format!(
        "{} files written and closed, {} refused; {} read back; {} holds lost their daemon\n",
        of("write", true),
        of("write", false),
        of("read", true),
        holds.iter().filter(lost).count(),
    )
}

/// What it is called on the command line.
fn kind_of(fault: &Event) -> String {
    let is_of_daemon =
        fault.text("fault") == "kill" && ["s3fs", "drain"].contains(&fault.text("process"));
    if is_of_daemon { "daemon".into() } else { fault.text("fault").to_owned() }
}

/// A fault, and what it hit.
fn name_of(fault: &Event) -> String {
    let what = ["process", "how", "from"].map(|field| fault.text(field)).concat();
    let call = fault.text("call");
    [fault.text("fault"), &what, call].join(" ").trim().to_owned()
}

fn tally(words: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    parts.join(", ")
}

/// All violations; of the first ones, how it came.
pub(crate) fn violations(found: &[Violation], events: &[Event], words: Option<&Path>) -> String {
    let mut text = String::new();
    for (number, violation) in found.iter().enumerate() {
        let Violation { promise, text: what, node, target, hold, .. } = violation;
        let _ = writeln!(text, "violation: {promise}: {node} {target} {hold}: {what}");
        if number < SHOWN {
            text += &story(violation, events, words);
        }
    }
    text
}

/// The events that have to do with it, from a little before it began to when it was seen.
fn story(violation: &Violation, events: &[Event], words: Option<&Path>) -> String {
    let is_near = |event: &&Event| {
        (violation.from - 2.0..=violation.to + 0.5).contains(&event.t())
            && (event.text("node") == violation.node || event.text("node").is_empty())
            && (event.text("target") == violation.target
                || event.text("target").is_empty()
                || violation.target.is_empty())
            && !(event.is("write") && event.flag("ok"))
            && !(event.is("read") && event.flag("same"))
            && !event.is("object")
    };
    let near: Vec<&Event> = events.iter().filter(is_near).collect();
    let mut text = String::new();
    let skipped = near.len().saturating_sub(LINES);
    if skipped > 0 {
        let _ = writeln!(text, "    ({skipped} earlier ones are left out)");
    }
    let mut ids = BTreeSet::new();
    for event in &near[skipped..] {
        let mut line = event.value().to_string();
        line.truncate(line.char_indices().nth(600).map_or(line.len(), |(end, _)| end));
        let _ = writeln!(text, "    {line}");
        if event.text("hold") == violation.hold && !event.text("id").is_empty() {
            ids.insert(event.text("id").to_owned());
        }
    }
    for id in ids {
        let said = words.and_then(|dir| fs::read_to_string(dir.join(&id)).ok()).unwrap_or_default();
        for line in said.lines().take(LINES) {
            let _ = writeln!(text, "    {id}: {line}");
        }
    }
    text
}
