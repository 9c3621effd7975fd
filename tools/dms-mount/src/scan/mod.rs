//! Looking at all processes of the host, within a bound.
//!
//! What /proc says of a process can wait for that process: one that execs with a file of a hung mount
//! open does not get to an end, and whoever asks for its environment, or what it has open, waits with
//! it. So another process does it (`look`), with a thread to spare for each look that does not end.

mod each;
mod process;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, getsid};
use serde::{Deserialize, Serialize};

use self::each::{LONGEST, each};
use self::process::{has_below, has_copy, has_entries, serves, value_of, was_told};
use crate::look;

/// What the process that looks is asked: the numbers of those processes, or what stands somewhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Started with all these entries in the environment.
    With(Vec<String>),
    /// The same, of those that lead their session, or stand in one that nobody leads any more.
    Leading(Vec<String>),
    /// With something open below this path.
    Below(PathBuf),
    /// This one, if it serves a FUSE mount at this path.
    Serving(PathBuf, i32),
    /// Root's, with these words side by side on the command line.
    Told(Vec<String>),
    /// With a mount of this device in another mount namespace.
    WithCopy(String),
    /// What stands behind one of these words on its command line or in its environment.
    Value(i32, Vec<String>),
}

/// What was seen.
pub(crate) struct Seen {
    pub(crate) found: Vec<String>,
    /// False: some hang, and so do the looks at them.
    pub(crate) is_over: bool,
}

/// The processes that were started with all these entries in their environment; those that lead their
/// session come first, since their children have the same.
pub(crate) fn started_with(entries: &[String]) -> io::Result<Vec<i32>> {
    pids(Question::With(entries.to_vec()))
}

/// The same of what leads a session, or has lost its leader: these are few, and the look at an environment
/// takes the most of a scan.
pub(crate) fn leading_with(entries: &[String]) -> io::Result<Vec<i32>> {
    pids(Question::Leading(entries.to_vec()))
}

/// The processes that have something open, or stand, below `path`.
pub(crate) fn below(path: &Path) -> io::Result<Vec<i32>> {
    pids(Question::Below(path.to_owned()))
}

/// The processes with this number, if it serves a FUSE mount at `path`, as far as its command line
/// or environment says: for a number that somebody else has written down.
pub(crate) fn serving(path: &Path, pid: i32) -> io::Result<Vec<i32>> {
    pids(Question::Serving(path.to_owned(), pid))
}

/// The processes of root that were told these words, one behind the other.
pub(crate) fn told(words: &[&str]) -> io::Result<Vec<i32>> {
    pids(Question::Told(words.iter().map(|&word| word.to_owned()).collect()))
}

/// The processes that have a mount of this device, `major:minor`, in another mount namespace than ours.
pub(crate) fn with_copy(device: &str) -> io::Result<Vec<i32>> {
    pids(Question::WithCopy(device.to_owned()))
}

/// What stands behind one of these words, on the command line or in the environment that the
/// process was started with. Only for what everybody may know.
pub(crate) fn value(pid: i32, words: &[String]) -> io::Result<Option<String>> {
    Ok(ask(Question::Value(pid, words.to_owned()))?.into_iter().next())
}

fn pids(question: Question) -> io::Result<Vec<i32>> {
    Ok(ask(question)?.iter().filter_map(|line| line.parse().ok()).collect())
}

fn ask(question: Question) -> io::Result<Vec<String>> {
    let answer = look::ask(&look::Question::Processes(question), LONGEST)?;
    answer.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

impl Question {
    /// Looks at all processes, or at the one that it is about.
    pub(crate) fn answer(self) -> Result<Seen, String> {
        let mut pids = match self {
            Question::Serving(_, pid) | Question::Value(pid, _) => vec![pid],
            _ => processes().map_err(|why| format!("unable to read /proc: {why}"))?,
        };
        pids.retain(|pid| *pid != std::process::id().cast_signed());
        if let Question::Leading(_) = self {
            pids = leading(pids);
        }
        let order: fn(i32) -> bool = match self {
            Question::With(_) | Question::Leading(_) => |pid| session_of(pid) != Some(pid),
            _ => |_| false,
        };
        let seen = each(pids, move |pid| self.see(pid).map(|seen| (pid, seen)));
        let (mut found, is_over) = seen.ok_or("too many processes hang")?;
        found.sort_by_key(|(pid, _)| (order(*pid), *pid));
        Ok(Seen { found: found.into_iter().map(|(_, seen)| seen).collect(), is_over })
    }

    /// Its number, or the value; nothing if it is not one of those that are asked for.
    fn see(&self, pid: i32) -> Option<String> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let is_it = match self {
            Question::With(entries) | Question::Leading(entries) => has_entries(&process, entries),
            Question::Below(path) => has_below(&process, path),
            Question::Serving(path, _) => serves(&process, path),
            Question::Told(words) => was_told(&process, words),
            Question::WithCopy(device) => has_copy(&process, device),
            Question::Value(_, words) => return value_of(&process, words),
        };
        is_it.then(|| pid.to_string())
    }
}

fn processes() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn session_of(pid: i32) -> Option<i32> {
    getsid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

fn leading(pids: Vec<i32>) -> Vec<i32> {
    // A zombie leads nobody, and has no program any more.
    let runs = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let mut leads = HashMap::new();
    let mut is_led = |by: i32| *leads.entry(by).or_insert_with(|| runs(by));
    let counts = |pid: &i32| {
        session_of(*pid).is_some_and(|by| match by {
            // Of a leader that is out of our sight; or of the kernel's own, which have no program.
            0 => runs(*pid),
            by => by == *pid || !is_led(by),
        })
    };
    pids.into_iter().filter(counts).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Command;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

    use super::*;
    use crate::session;

    #[test]
    fn of_a_session_its_leader_counts_and_when_that_has_ended_all_that_are_left() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]).env("PATH", "/usr/bin:/bin");
        let leader = session::start(&command, &writer).expect("it is there");
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).expect("it says a number");
        let child: i32 = line.trim().parse().expect("a number");
        assert_eq!(leading(vec![leader, child]), [leader]);
        let of = Pid::from_raw;
        kill(of(leader), Signal::SIGKILL).expect("it is ours");
        // A zombie, as long as nobody reaps it.
        waitid(Id::Pid(of(leader)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it ends");
        assert_eq!(leading(vec![child]), [child]);
        waitpid(of(leader), None).expect("it has ended");
        assert_eq!(leading(vec![child]), [child]);
        kill(of(child), Signal::SIGKILL).expect("it is ours");
    }
}
