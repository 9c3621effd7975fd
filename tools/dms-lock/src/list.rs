//! `--list`: who holds which lock, and who waits.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use dms_cli::{Column, Context, Exit, Failure, Look, Table, quiet_end};
use dms_flock::Mode;
use dms_flock::kernel::{self, Known};
use serde_json::json;

use crate::dir::LockDir;
use crate::name::{file_name, shown};
use crate::who::{self, User};

const COLUMNS: [Column; 7] = [
    Column::plain("lock"),
    Column::plain("level"),
    Column::plain("state"),
    Column::plain("mode"),
    Column::plain("pid"),
    Column::plain("seconds"),
    Column::rest("command"),
];

/// A lock file, or the gate before one.
struct Place {
    name: String,
    level: u32,
    is_gate: bool,
    inode: u64,
}

/// Prints a row for each process that holds or waits for one of the locks; without names, of all.
pub(crate) fn list(
    dir: &LockDir,
    names: &[String],
    as_json: bool,
    mut output: impl Write,
) -> Result<Exit, Failure> {
    let all = dir.all_locks().context("unable to read", dir.path().display())?;
    let wanted: Vec<String> = names.iter().map(|name| file_name(name)).collect();
    let (mut places, mut files) = (Vec::new(), HashMap::new());
    for (name, level, path) in all {
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        let gate = (level == 0).then(|| dir.gate(&name));
        for (path, is_gate) in [(Some(path), false), (gate, true)] {
            let Some(path) = path else { continue };
            // Removed meanwhile is as good as free.
            let Ok(file) = fs::symlink_metadata(&path) else { continue };
            files.insert(file.ino(), path.file_name().unwrap_or_default().to_owned());
            places.push(Place { name: shown(&name), level, is_gate, inode: file.ino() });
        }
    }
    // Of the locks of this directory only.
    let known: Vec<Known> = match kernel::device_in(dir.path()) {
        Some(device) => kernel::known()
            .into_iter()
            .filter(|lock| places.iter().any(|place| lock.is_on(device, place.inode)))
            .collect(),
        None => Vec::new(),
    };
    let users = who::users(&files, who::everybody());
    let mut table = Table::new(&COLUMNS);
    for place in &places {
        for row in rows(place, &known, &users) {
            table.add(row);
        }
    }
    let written = match as_json {
        true => table.write_json(&mut output),
        false => table.write_text(&mut output, Look::of_stdout(false)),
    };
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

fn rows(place: &Place, known: &[Known], users: &[User]) -> Vec<Vec<serde_json::Value>> {
    let here: Vec<&Known> = known.iter().filter(|lock| lock.inode() == place.inode).collect();
    let users: Vec<&User> = users.iter().filter(|user| user.inode == place.inode).collect();
    let row = |state: &str, mode: Option<Mode>, pid: i32, user: Option<&User>| {
        vec![
            json!(place.name),
            json!(place.level),
            json!(state),
            json!(mode.map(word)),
            json!(pid),
            json!(user.map(|user| user.millis / 1000)),
            json!(user.map(|user| user.command.as_str())),
        ]
    };
    // Whoever holds a gate waits for the lock behind it, and stands there.
    let mut found: Vec<_> = users
        .iter()
        .filter(|_| !place.is_gate)
        .filter_map(|user| Some(row("holds", Some(user.holds?), user.pid, Some(user))))
        .collect();
    if found.is_empty() && !place.is_gate {
        // Those of another user are known by their numbers only.
        let unseen = here.iter().filter(|lock| !lock.waits);
        found.extend(unseen.map(|lock| row("holds", Some(lock.mode), lock.pid, None)));
    }
    for lock in here.iter().filter(|lock| lock.waits) {
        let user = users.iter().find(|user| user.pid == lock.pid && user.holds.is_none());
        // At the gate all wait alike.
        let mode = (!place.is_gate).then_some(lock.mode);
        found.push(row("waits", mode, lock.pid, user.copied()));
    }
    found
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => "shared",
        Mode::Exclusive => "exclusive",
    }
}
