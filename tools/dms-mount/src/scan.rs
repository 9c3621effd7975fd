//! Looking at all processes of the host, within a bound.
//!
//! What /proc says of a process can wait for that process: one that execs with a file of a hung mount
//! open does not get to an end, and whoever asks for its environment, or what it has open, waits with
//! it. So another process does it (this program, as `dms-mount scan`), with a thread to spare for
//! each look that does not end, and it is gone when it is done.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use nix::unistd::{Pid, getsid};

use crate::child::{self, Outcome};
use crate::cli::ScanArgs;

/// How long a look at one process may take until another thread goes on with the next.
const LOOK: Duration = Duration::from_millis(20);

/// More processes than that do not hang: then the scan fails.
const STUCK: usize = 100;

/// For so many looks nobody answers any more, when all have been asked.
const QUIET: usize = 10;

/// The processes that were started with all entries of one of these lists in their environment;
/// those that lead their session come first, since their children have the same.
pub(crate) fn started_with(lists: &[&[String]]) -> io::Result<Vec<i32>> {
    let mut command = scan();
    for list in lists {
        command.arg("--with").arg(list.join("\n"));
    }
    pids(&mut command)
}

/// The processes that have something open, or stand, below `path`.
pub(crate) fn below(path: &Path) -> io::Result<Vec<i32>> {
    pids(scan().arg("--below").arg(path))
}

/// The processes with this number, if it serves a FUSE mount at `path`, as far as its command line
/// or environment says: for a number that somebody else has written down.
pub(crate) fn serving(path: &Path, pid: i32) -> io::Result<Vec<i32>> {
    pids(scan().arg("--serving").arg(path).arg("--pid").arg(pid.to_string()))
}

fn scan() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("scan").env_clear();
    command
}

fn pids(command: &mut Command) -> io::Result<Vec<i32>> {
    let bound = LOOK * (u32::try_from(STUCK).unwrap_or(u32::MAX) + 50);
    let Outcome::Ended(ended) = child::run(command, bound, None)? else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    if !ended.status.success() {
        return Err(io::Error::other(ended.stderr));
    }
    Ok(ended.stdout.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The scan's own main: prints the numbers of the processes that are looked for.
pub(crate) fn main(args: ScanArgs, mut output: impl Write) -> Result<Exit, Failure> {
    let mut pids: Vec<i32> = match args.pid {
        Some(pid) => vec![pid],
        None => fs::read_dir("/proc")
            .context("unable to read", "/proc")?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect(),
    };
    pids.retain(|pid| *pid != std::process::id().cast_signed());
    let found = each(pids, move |pid| args.matches(pid));
    let mut found = found.ok_or_else(|| Failure::temporary("too many processes hang"))?;
    let leads = |pid: i32| getsid(Some(Pid::from_raw(pid))) == Ok(Pid::from_raw(pid));
    found.sort_by_key(|pid| (!leads(*pid), *pid));
    for pid in found {
        writeln!(output, "{pid}").context("unable to write", "stdout")?;
    }
    Ok(Exit::Done)
}

/// Those of the processes for which this is so; one that hangs is not among them. `None`: too many
/// hang to look at them all.
fn each(pids: Vec<i32>, is_so: impl Fn(i32) -> bool + Send + Sync + 'static) -> Option<Vec<i32>> {
    let (tell, told) = channel();
    let work = Arc::new((pids, AtomicUsize::new(0), is_so));
    let start = |tell: Sender<(i32, bool)>| {
        let work = Arc::clone(&work);
        thread::spawn(move || {
            let (pids, next, is_so) = &*work;
            while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                if tell.send((pid, is_so(pid))).is_err() {
                    return;
                }
            }
        });
    };
    start(tell.clone());
    let (mut looked_at, mut threads, mut quiet, mut found) = (0, 1, 0, Vec::new());
    while looked_at < work.0.len() {
        match told.recv_timeout(LOOK) {
            Ok((pid, is_so)) => {
                looked_at += 1;
                quiet = 0;
                found.extend(is_so.then_some(pid));
            }
            // All have been begun, and those that are not done hang.
            Err(_) if work.1.load(Ordering::Relaxed) >= work.0.len() && quiet >= QUIET => break,
            Err(_) if threads < STUCK => {
                threads += 1;
                quiet += 1;
                start(tell.clone());
            }
            Err(_) => return None,
        }
    }
    Some(found)
}

impl ScanArgs {
    fn matches(&self, pid: i32) -> bool {
        let process = PathBuf::from(format!("/proc/{pid}"));
        if let Some(path) = &self.below {
            return has_below(&process, path);
        }
        if let Some(path) = &self.serving {
            return serves(&process, path);
        }
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let has = |entry: &str| environment.split(|&byte| byte == 0).any(|e| e == entry.as_bytes());
        self.with.iter().any(|list| list.split('\n').all(has))
    }
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
            pid % 2 == 1
        });
        assert_eq!(found.map(|found| found.len()), Some(100));
    }

    #[test]
    fn nobody_is_looked_for_and_nobody_is_found() {
        assert_eq!(each(Vec::new(), |_| true), Some(Vec::new()));
    }
}
