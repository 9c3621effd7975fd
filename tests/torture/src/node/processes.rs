//! The processes of a node, and what they are.
//!
//! What is read of a process is what the kernel tells at once: the command line of one that waits for
//! a file system that hangs could hang, too.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Node;

/// A process of a node.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// As the host counts.
    pub(crate) pid: i32,
    /// The arguments, separated by spaces; the name alone where it waits in the kernel.
    pub(crate) command: String,
    /// What it is.
    pub(crate) kind: &'static str,
}

impl Found {
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        kill(Pid::from_raw(self.pid), signal).is_ok()
    }
}

impl Node {
    /// All its processes but the first, and but zfs-fuse, which stands for a part of its kernel.
    pub(crate) fn processes(&self) -> Vec<Found> {
        let mut found = self.all_processes();
        found.retain(|one| one.kind != "zfs-fuse");
        found
    }

    /// All its processes but the first.
    pub(crate) fn all_processes(&self) -> Vec<Found> {
        let init = self.init();
        let Some(space) = space_of(init) else { return Vec::new() };
        let mut found = in_space(&space);
        found.retain(|pid| *pid != init);
        found.into_iter().filter_map(look).collect()
    }

    /// Those of this kind.
    pub(crate) fn processes_of(&self, kind: &str) -> Vec<Found> {
        let mut found = self.processes();
        found.retain(|process| process.kind == kind);
        found
    }

    /// Which target a daemon serves. Who keeps the words of several serves none.
    pub(crate) fn target_of(&self, process: &Found) -> Option<String> {
        let base = self.path("mnt").display().to_string();
        process.command.split(' ').find_map(|word| {
            let name = word.strip_prefix(&*base)?;
            Some(name.trim_start_matches('/').to_owned())
        })
    }
}

/// The PID namespace of a process.
pub(super) fn space_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// All processes of a PID namespace.
pub(super) fn in_space(space: &PathBuf) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| space_of(*pid).as_ref() == Some(space)).collect()
}

/// What one is; `None` if it has ended.
fn look(pid: i32) -> Option<Found> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (start, rest) = stat.rsplit_once(") ")?;
    let name = start.split_once(" (")?.1;
    let state = rest.chars().next()?;
    let command = match state {
        'Z' | 'X' => return None,
        'D' => name.to_owned(),
        _ => {
            let text = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            String::from_utf8_lossy(&text).replace('\0', " ").trim().to_owned()
        }
    };
    Some(Found { pid, kind: kind(name, &command), command })
}

fn kind(name: &str, command: &str) -> &'static str {
    let has = |word: &str| command.split(' ').skip(1).take(2).any(|one| one == word);
    match name {
        "dms-listen" => "dms-listen",
        "dms-lock" => "dms-lock",
        "dms-call" => "dms-call",
        "dms-with" => "dms-with",
        // What it becomes where the ledger is on a server has a longer name, which the kernel cuts.
        "dms-ledger" | "dms-ledger-serv" if has("plan") => "plan",
        "dms-ledger" | "dms-ledger-serv" if has("commit") => "commit",
        "dms-ledger" | "dms-ledger-serv" => "dms-ledger",
        // It calls itself by the kernel's link to it.
        "exe" | "dms-mount" if has("drain") => "drain",
        "exe" | "dms-mount" if has("look") => "look",
        "dms-mount" => "dms-mount",
        "s3fs" => "s3fs",
        "mount" | "mount.nfs" | "mount.nfs4" => "mount",
        "umount" | "umount.nfs" | "umount.nfs4" => "umount",
        "zfs-fuse" => "zfs-fuse",
        "zpool" => "zpool",
        "torture" if has("witness") || command == name => "witness",
        "sh" => "sh",
        _ => "other",
    }
}

/// How many descriptors a process has, and how much memory in KiB.
pub(crate) fn weight_of(pid: i32) -> (usize, u64) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let memory = memory.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    (descriptors, memory.unwrap_or_default())
}
