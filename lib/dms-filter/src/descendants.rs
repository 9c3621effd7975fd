//! What a process has started, found in /proc.

use std::collections::HashMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process group, and the processes below it as far as they are of its session: a daemon that it
/// has started has left it on purpose. The leader of the group may have ended.
#[derive(Debug)]
pub(crate) struct Descendants(Vec<Process>);

/// A process, known by its start too: numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    /// As proc(5) has it; `Z` is a zombie.
    state: char,
    /// In clock ticks since the boot.
    started: u64,
}

impl Descendants {
    /// Of the group with this leader, as of now. What cannot be read is none.
    pub(crate) fn of(leader: u32) -> Descendants {
        let Ok(leader) = i32::try_from(leader) else { return Descendants(Vec::new()) };
        let all = Descendants::everybody();
        let mut found: Vec<Process> = all.values().filter(|p| p.group == leader).copied().collect();
        let mut at = 0;
        while at < found.len() {
            let Process { pid, session, .. } = found[at];
            let is_child =
                |p: &&Process| p.parent == pid && p.session == session && p.group != leader;
            let children: Vec<Process> = all.values().filter(is_child).copied().collect();
            found.extend(children);
            at += 1;
        }
        Descendants(found)
    }

    fn everybody() -> HashMap<i32, Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, Process::read(pid)?)))
            .collect()
    }

    /// Whether any of them is still there.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.iter().any(Process::is_alive)
    }

    /// Kills those that are still there.
    pub(crate) fn kill(&self) {
        for process in self.0.iter().filter(|process| process.is_alive()) {
            // Gone in between is as good.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }
}

impl Process {
    fn is_alive(&self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }

    fn read(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may itself contain some.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(Process {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_group_of_its_own_is_found_and_a_session_of_its_own_is_not() {
        // In an interactive shell each job is a group of its own.
        let script = "set -m; sleep 60 & setsid sleep 61 & echo; wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut word = [0];
        child.stdout.as_mut().expect("it is piped").read_exact(&mut word).expect("it says so");
        let name = |p: &Process| fs::read_to_string(format!("/proc/{}/cmdline", p.pid));
        let has = |found: &Descendants, word: &str| {
            found.0.iter().any(|p| name(p).is_ok_and(|line| line == format!("sleep\0{word}\0")))
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let found = loop {
            // Both have to be there before it can be told which is found.
            let all = Descendants(Descendants::everybody().into_values().collect());
            let found = Descendants::of(child.id());
            if (has(&found, "60") && has(&all, "61")) || std::time::Instant::now() > end {
                break found;
            }
        };
        assert!(has(&found, "60") && !has(&found, "61"), "{found:?}");
        found.kill();
        child.wait().expect("it is ours");
        // It is gone when it has been reaped, which is not ours to do.
        while has(&found, "60") && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert!(!has(&found, "60"));
        let others = Descendants::everybody().into_values().filter(|p| !found.0.contains(p));
        for other in others.filter(|p| name(p).is_ok_and(|line| line == "sleep\x0061\0")) {
            let _ = kill(Pid::from_raw(other.pid), Signal::SIGKILL);
        }
    }
}
