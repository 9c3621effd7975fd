//! Looking at all processes of the host, within a bound.
//!
//! What /proc says of a process can wait for that process: one that execs with a file of a hung mount
//! open does not get to an end, and whoever asks for its environment, or what it has open, waits with
//! it. So another process does it (`look`), with a thread to spare for each look that does not end.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::unistd::{Pid, getsid};
use serde::{Deserialize, Serialize};

use crate::look;

/// How long a look at one process may take until another thread goes on with the next.
const LOOK: Duration = Duration::from_millis(20);

/// More processes than that do not hang: then the scan fails.
const STUCK: usize = 100;

/// For so many looks nobody answers any more, when all have been asked.
const QUIET: usize = 10;

/// What the process that looks is asked: the numbers of those processes, or what stands somewhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Started with all entries of one of these lists in the environment.
    With(Vec<Vec<String>>),
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

/// The processes that were started with all entries of one of these lists in their environment;
/// those that lead their session come first, since their children have the same.
pub(crate) fn started_with(lists: &[&[String]]) -> io::Result<Vec<i32>> {
    pids(Question::With(lists.iter().map(|list| list.to_vec()).collect()))
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
    let bound = LOOK * (u32::try_from(STUCK).unwrap_or(u32::MAX) + 50);
    let answer = look::ask(&look::Question::Processes(question), bound)?;
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
        let order: fn(i32) -> bool = match self {
            Question::With(_) => |pid| getsid(Some(Pid::from_raw(pid))) != Ok(Pid::from_raw(pid)),
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
            Question::With(lists) => has_entries(&process, lists),
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

/// What there is to be seen of each of the processes, nothing of one that hangs; and whether none
/// does. `None`: too many hang to look at them all.
fn each<T: Send + 'static>(
    pids: Vec<i32>,
    look: impl Fn(i32) -> Option<T> + Send + Sync + 'static,
) -> Option<(Vec<T>, bool)> {
    let (tell, told) = channel();
    let work = Arc::new((pids, AtomicUsize::new(0), look));
    let start = |tell: Sender<Option<T>>| {
        let work = Arc::clone(&work);
        thread::spawn(move || {
            let (pids, next, look) = &*work;
            while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                if tell.send(look(pid)).is_err() {
                    return;
                }
            }
        });
    };
    start(tell.clone());
    let are_all_begun = || work.1.load(Ordering::Relaxed) >= work.0.len();
    let (mut looked_at, mut threads, mut quiet, mut found) = (0, 1, 0, Vec::new());
    // When all are begun and nobody answers any more, those that are left hang.
    while looked_at < work.0.len() && quiet < QUIET {
        match told.recv_timeout(LOOK) {
            Ok(seen) => {
                looked_at += 1;
                quiet = 0;
                found.extend(seen);
            }
            Err(_) if are_all_begun() => quiet += 1,
            Err(_) if threads < STUCK => {
                threads += 1;
                start(tell.clone());
            }
            Err(_) => return None,
        }
    }
    Some((found, looked_at == work.0.len()))
}

fn has_entries(process: &Path, lists: &[Vec<String>]) -> bool {
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    let entries: Vec<&[u8]> = environment.split(|&byte| byte == 0).collect();
    lists.iter().any(|list| list.iter().all(|entry| entries.contains(&entry.as_bytes())))
}

fn value_of(process: &Path, words: &[String]) -> Option<String> {
    let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
    let text = [read("cmdline"), read("environ")].join(&0);
    let mut told = text.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    told.find_map(|told| {
        let behind = words.iter().find_map(|word| told.strip_prefix(word.as_bytes()));
        behind.map(|rest| String::from_utf8_lossy(rest).into_owned())
    })
}

fn was_told(process: &Path, words: &[String]) -> bool {
    let text = fs::read(process.join("cmdline")).unwrap_or_default();
    let told: Vec<&[u8]> = text.split(|&byte| byte == 0).collect();
    // Anybody can write anything on a command line of their own.
    told.windows(words.len()).any(|part| part.iter().zip(words).all(|(a, b)| *a == b.as_bytes()))
        && fs::metadata(process).is_ok_and(|about| about.uid() == 0)
}

fn has_copy(process: &Path, device: &str) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    // 36 35 98:0 /root /mount/point ...
    let is_it = |line: &str| line.split(' ').nth(2) == Some(device);
    namespace(process) != namespace(Path::new("/proc/self"))
        && fs::read_to_string(process.join("mountinfo")).is_ok_and(|text| text.lines().any(is_it))
}

fn has_below(process: &Path, path: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = ["cwd", "root", "exe"]
        .map(|name| process.join(name))
        .into_iter()
        .chain(descriptors.map(|descriptor| descriptor.path()));
    // Reading a link does not touch what it points to.
    links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(path)))
}

fn serves(process: &Path, path: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let path = path.as_os_str().as_bytes();
    let names = |file: &str| {
        let text = fs::read(process.join(file)).unwrap_or_default();
        text.split(|&byte| byte == 0)
            .any(|word| word == path || word.splitn(2, |&byte| byte == b'=').nth(1) == Some(path))
    };
    links.any(|link| link == Path::new("/dev/fuse")) && (names("cmdline") || names("environ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_does_not_end_keeps_nobody_waiting_for_the_others() {
        let found = each((1..200).collect(), |pid| {
            if pid % 50 == 0 {
                thread::sleep(Duration::from_secs(60));
            }
            (pid % 2 == 1).then_some(pid)
        });
        assert_eq!(found.map(|(found, is_over)| (found.len(), is_over)), Some((100, false)));
    }

    #[test]
    fn a_slow_machine_loses_nobody() {
        let found = each((0..20).collect(), |pid| {
            thread::sleep(LOOK * 2);
            Some(pid)
        });
        assert_eq!(found.map(|(found, is_over)| (found.len(), is_over)), Some((20, true)));
    }

    #[test]
    fn where_too_many_hang_nothing_is_said_of_the_others() {
        let hang = |pid| {
            thread::sleep(Duration::from_secs(60));
            Some(pid)
        };
        assert_eq!(each((0..1000).collect(), hang), None);
    }

    #[test]
    fn nobody_is_looked_for_and_nobody_is_found() {
        assert_eq!(each(Vec::new(), Some), Some((Vec::new(), true)));
    }
}
