//! Processes, as /proc tells of them.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that runs (a zombie does not).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its command line, the arguments separated by spaces.
    pub command: String,
}

impl Process {
    /// Sends it a signal; it may have ended meanwhile.
    pub fn signal(&self, signal: Signal) -> bool {
        kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Whether a signal has stopped it, with all its threads: they stop one after the other.
    pub fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat"));
        // The name stands in parentheses and may itself contain some.
        let is_stopped =
            |stat: String| stat.rsplit_once(") ").is_some_and(|s| s.1.starts_with('T'));
        tasks.flatten().all(|task| stat(task).is_ok_and(is_stopped))
    }

    /// Whether it still runs, as what it was.
    pub fn runs(&self) -> bool {
        command_line(Path::new(&format!("/proc/{}", self.pid))) == self.command
    }

    /// What it is in a node's pipeline; `None` if it is no stage of one.
    pub fn stage(&self) -> Option<&'static str> {
        let mut words = self.command.split(' ');
        let program = words.next()?.rsplit('/').next()?;
        match (program, words.next()) {
            ("dms-lock", _) => Some("lock"),
            ("sh", Some("-c")) => Some("sh"),
            ("dms-ledger", Some("plan")) => Some("plan"),
            ("dms-ledger", Some("commit")) => Some("commit"),
            ("dms-mount", None) => Some("mount"),
            _ => None,
        }
    }
}

/// Whether a process waits for a lock, in the kernel, not in a loop.
pub fn waits_for_lock(pid: u32) -> bool {
    let locks = fs::read_to_string("/proc/locks").expect("/proc is there");
    let is_it = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"->") && words.get(5) == Some(&&*pid.to_string())
    };
    locks.lines().any(is_it)
}

/// How often the threads of a process went to sleep, which is how often they were woken.
pub fn wakes(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find(|line| line.starts_with("voluntary"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    statuses.filter_map(count).sum()
}

/// All processes that have `text` in their command line or in their environment.
pub fn processes_with(text: &str) -> Vec<Process> {
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A zombie has neither; one that ended meanwhile cannot be read.
        let cmdline = command_line(&entry.path());
        // One that waits for a hung mount within its exec would keep whoever asks waiting, too.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let environ = match status.contains("State:\tD") {
            true => Vec::new(),
            false => fs::read(entry.path().join("environ")).unwrap_or_default(),
        };
        if !cmdline.is_empty() && (cmdline.contains(text) || has(&environ)) {
            found.push(Process { pid, command: cmdline });
        }
    }
    found
}

fn command_line(process: &Path) -> String {
    let cmdline = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&cmdline).replace('\0', " ").trim().to_owned()
}
