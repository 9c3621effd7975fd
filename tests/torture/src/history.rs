//! What happened, in a file: a JSON object a line, with the moment `t` and the name of the `event`.
//!
//! It is written by all threads, and its lines are in the order in which they were written; what a
//! witness has seen is added when it has ended. Whoever reads it sorts it.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::clock::now;

/// The file of a run.
pub(crate) struct History {
    path: PathBuf,
    file: Mutex<File>,
}

impl History {
    /// A new one.
    pub(crate) fn create(path: &Path) -> io::Result<History> {
        let file = File::create(path).map_err(|why| unable("write", path, &why))?;
        Ok(History { path: path.to_owned(), file: Mutex::new(file) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// This happened now. Returns when.
    pub(crate) fn note(&self, event: &str, fields: Value) -> f64 {
        let t = now();
        self.note_at(t, event, fields);
        t
    }

    /// This happened then.
    pub(crate) fn note_at(&self, t: f64, event: &str, fields: Value) {
        let mut line = Map::new();
        line.insert("t".into(), t.into());
        line.insert("event".into(), event.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let line = format!("{}\n", Value::Object(line));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a history there is nothing to check: better no run than half of one.
        file.write_all(line.as_bytes()).expect("room for the history");
    }
}

/// One line of it.
#[derive(Debug, Clone)]
pub(crate) struct Event(Value);

impl Event {
    pub(crate) fn t(&self) -> f64 {
        self.number("t")
    }

    pub(crate) fn is(&self, event: &str) -> bool {
        self.text("event") == event
    }

    /// The field; empty if there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// The field; 0 if there is none.
    pub(crate) fn number(&self, field: &str) -> f64 {
        self.0[field].as_f64().unwrap_or_default()
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or_default()
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Whether it is about this target of this node.
    pub(crate) fn is_at(&self, node: &str, target: &str) -> bool {
        self.text("node") == node && self.text("target") == target
    }
}

/// All lines of a history, in the order of their moments.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = fs::read_to_string(path).map_err(|why| unable("read", path, &why))?;
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let value = serde_json::from_str(line)
            .map_err(|why| unable("read", path, &format!("line {}: {why}", number + 1)))?;
        events.push(Event(value));
    }
    events.sort_by(|a, b| a.t().total_cmp(&b.t()));
    Ok(events)
}

fn unable(verb: &str, path: &Path, why: &dyn Display) -> io::Error {
    io::Error::other(format!("unable to {verb} {}: {why}", path.display()))
}

#[cfg(test)]
pub(crate) fn event(value: Value) -> Event {
    Event(value)
}
