//! Who holds a lock, and who waits for it: as /proc/locks has it, and the processes themselves.
//!
//! /proc/locks names the process that took a lock. That one may have ended and left it to its
//! children; so whoever has the lock's descriptor open is looked for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dms_flock::{LockFile, Mode, kernel};

use crate::descriptor::Descriptor;

/// A process that has a lock file open.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) pid: i32,
    /// The number of the lock file.
    pub(crate) inode: u64,
    /// How it holds the lock; `None`: it does not.
    pub(crate) holds: Option<Mode>,
    /// For how long it has held it or waited, in milliseconds. Of a stranger, since it started.
    pub(crate) millis: u64,
    pub(crate) command: String,
}

/// The processes among these that have one of these lock files open: number and file name.
pub(crate) fn users(files: &HashMap<u64, OsString>, pids: impl Iterator<Item = i32>) -> Vec<User> {
    pids.flat_map(|pid| users_in(files, pid)).collect()
}

fn users_in(files: &HashMap<u64, OsString>, pid: i32) -> Vec<User> {
    let process = pid.to_string();
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut found: Vec<User> = Vec::new();
    for entry in open {
        // Told by its name first, which is quick, and waits for no server.
        let Ok(path) = fs::read_link(entry.path()) else { continue };
        if !path.file_name().is_some_and(|name| files.values().any(|file| file == name)) {
            continue;
        }
        let number = entry.file_name().to_string_lossy().into_owned();
        let Some(file) = Descriptor::of(&process, &number) else { continue };
        let is_new = !found.iter().any(|user| user.inode == file.inode && user.holds == file.lock);
        if files.contains_key(&file.inode) && is_new {
            let (holds, inode) = (file.lock, file.inode);
            let millis = millis_since(pid, file.moment);
            found.push(User { pid, inode, holds, millis, command: command(pid) });
        }
    }
    found
}

/// Whether another process than this one has the file open.
pub(crate) fn has_open(path: &Path, but: u32) -> bool {
    let (Ok(file), Some(name)) = (fs::symlink_metadata(path), path.file_name()) else {
        return false;
    };
    let files = HashMap::from([(file.ino(), name.to_owned())]);
    let others = everybody().filter(|&pid| i64::from(pid) != i64::from(but));
    !users(&files, others).is_empty()
}

/// All processes.
pub(crate) fn everybody() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A few words on who holds the lock, or is before us: `held by pid 7 (sh -c x) for 3 s`.
pub(crate) fn describe(lock: &Path, gate: &Path) -> String {
    let (lock, gate) = (lock.to_owned(), gate.to_owned());
    let (tell, told) = mpsc::channel();
    // A process that hangs in the kernel may keep whoever asks for its name waiting, too.
    thread::spawn(move || {
        let who = holders(&lock).map(|who| format!("held by {who}"));
        let who = who.or_else(|| Some(format!("{} is first", holders(&gate)?)));
        // Nobody listens any more if it took too long.
        let _ = tell.send(who);
    });
    let who = told.recv_timeout(Duration::from_secs(1)).ok().flatten();
    who.unwrap_or_else(|| "by whom it is held cannot be told".to_owned())
}

fn holders(path: &Path) -> Option<String> {
    let file = fs::symlink_metadata(path).ok()?;
    let files = HashMap::from([(file.ino(), path.file_name()?.to_owned())]);
    let takers = kernel::takers(path);
    let holding = |pids: &mut dyn Iterator<Item = i32>| -> Vec<User> {
        users(&files, pids).into_iter().filter(|user| user.holds.is_some()).collect()
    };
    let mut found = holding(&mut takers.iter().copied());
    if found.is_empty() {
        // Whoever took it has left it to its children.
        found = holding(&mut everybody());
    }
    found.sort_by_key(|user| (std::cmp::Reverse(user.millis), user.pid));
    let Some(first) = found.first() else {
        // Those of another user are known by their number only.
        return takers.first().map(|&pid| format!("pid {pid} ({})", command(pid)));
    };
    let User { pid, command, millis, .. } = first;
    let more = match takers.len().max(1) - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("pid {pid} ({command}) for {} s{more}", millis / 1000))
}

/// Since this moment, or since the process began, if it noted none.
fn millis_since(pid: i32, moment: u64) -> u64 {
    let now = LockFile::moment();
    match moment {
        0 => now.saturating_sub(started(pid).unwrap_or(now)),
        moment => now.saturating_sub(moment),
    }
}

/// When a process began, in milliseconds of `CLOCK_BOOTTIME`.
fn started(pid: i32) -> Option<u64> {
    /// The unit of proc(5), on every machine that Linux has.
    const TICK: u64 = 10;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(ticks * TICK)
}

/// What a process is, for people, on one line.
fn command(pid: i32) -> String {
    const LONGEST: usize = 80;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (before, behind) = stat.rsplit_once(") ").unwrap_or_default();
    let name = before.split_once('(').map_or("?", |(_, name)| name);
    // The arguments of one that hangs in the kernel may be where nobody gets at them.
    let line = match behind.starts_with('D') {
        true => Vec::new(),
        false => fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
    };
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let line = if line.trim().is_empty() { name } else { line.trim() };
    let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
