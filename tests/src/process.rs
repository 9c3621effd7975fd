//! Processes, as /proc tells of them.

use std::fs;

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
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // One that waits for a hung mount within its exec would keep whoever asks waiting, too.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let environ = match status.contains("State:\tD") {
            true => Vec::new(),
            false => fs::read(entry.path().join("environ")).unwrap_or_default(),
        };
        if !cmdline.is_empty() && (has(&cmdline) || has(&environ)) {
            let command = String::from_utf8_lossy(&cmdline).replace('\0', " ").trim().to_owned();
            found.push(Process { pid, command });
        }
    }
    found
}
