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
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if !cmdline.is_empty() && (has(&cmdline) || has(&environ)) {
            let command = String::from_utf8_lossy(&cmdline).replace('\0', " ").trim().to_owned();
            found.push(Process { pid, command });
        }
    }
    found
}
