//! FUSE daemons: started with nothing of ours, recognised by more than a number, and waited for.

use std::fs;
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use dms_cli::{boot_id, read_proc};
use dms_wire::Secret;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::retry_on_intr;
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, waitpid};
use serde::{Deserialize, Serialize};

use crate::drain::Words;
use crate::scope::Scope;
use crate::{drain, scan, session};

/// How often to look whether a process has ended, where the kernel has no way to tell.
const GLANCE: Duration = Duration::from_millis(5);

/// A process that cannot be mistaken for another: numbers are reused, but not with the same start
/// time in the same boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks since boot.
    pub(crate) start: u64,
    pub(crate) boot: String,
}

impl Identity {
    /// Of the process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        Ok(match running_since(pid) {
            Some(start) => Some(Identity { pid, start, boot: boot_id()? }),
            None => None,
        })
    }

    /// Whether it runs; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        running_since(self.pid) == Some(self.start) && boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Waits for its end. False: it still runs after `bound`.
    pub(crate) fn wait_for_end(&self, bound: Duration) -> bool {
        let end = Instant::now() + bound;
        // Whoever has its number now: whether that is still itself is looked at after this. Without
        // one (Linux before 5.3) it is looked at again and again.
        let handle = rustix::process::Pid::from_raw(self.pid);
        let handle = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        while self.is_alive() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let longest = if handle.is_some() { left } else { left.min(GLANCE) };
            let timeout = PollTimeout::try_from(longest.as_millis().saturating_add(1));
            let mut fds: Vec<PollFd<'_>> = Vec::new();
            fds.extend(handle.iter().map(|handle| PollFd::new(handle.as_fd(), PollFlags::POLLIN)));
            // Whatever comes of it, it is looked at again.
            let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
        }
        true
    }

    /// Whether anybody is in the process group that it leads or has led, be it a zombie.
    pub(crate) fn has_group(&self) -> bool {
        kill(Pid::from_raw(-self.pid), None) != Err(Errno::ESRCH)
    }

    /// Whether it is our child, be it a zombie.
    pub(crate) fn is_child(&self) -> bool {
        let parent = || stat(self.pid)?.split_ascii_whitespace().nth(1)?.parse().ok();
        parent() == Some(std::process::id())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self, patience: Duration) -> bool {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
        self.wait_for_end(patience)
    }

    /// Kills it. Only for one whose mount no job was told of: what it has not sent is lost. (TERM
    /// is no kinder: a daemon that waits for its server does not hear it.)
    pub(crate) fn kill(&self, patience: Duration) -> bool {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        self.wait_for_end(patience)
    }
}

/// What the kernel says of the process, from its state on, which is field 3.
fn stat(pid: i32) -> Option<String> {
    let stat = read_proc(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    // `pid (comm) S ...`: the name may contain anything, so count from its last parenthesis.
    stat.get(stat.rfind(')')? + 1..).map(str::to_owned)
}

/// When the process started; `None` if there is none, or only its zombie.
fn running_since(pid: i32) -> Option<u64> {
    let stat = stat(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        // The start time is field 22.
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The running process that was started with these entries in its environment: what is left to find
/// a daemon by when its record is lost.
pub(crate) fn find(entries: &[String]) -> io::Result<Option<Identity>> {
    scan::started_with(entries).and_then(identify)
}

/// The same of those that we have started, which lead their sessions.
pub(crate) fn find_own(entries: &[String]) -> io::Result<Option<Identity>> {
    scan::leading_with(entries).and_then(identify)
}

/// The process with this number, if it serves a FUSE mount at `path`.
pub(crate) fn serving(path: &Path, pid: i32) -> io::Result<Option<Identity>> {
    scan::serving(path, pid).and_then(identify)
}

/// The first that still runs.
fn identify(found: Vec<i32>) -> io::Result<Option<Identity>> {
    for pid in found {
        if let Some(identity) = Identity::of(pid)? {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

/// A daemon that we have just started.
pub(crate) struct Daemon {
    pub(crate) identity: Identity,
    ended: Receiver<ExitStatus>,
    words: Words,
}

impl Daemon {
    /// Starts it in a session of its own, and beside it somebody who keeps what it says in
    /// `log`. Of ours it inherits nothing: `command` has to say its whole environment, and all our
    /// descriptors are close-on-exec.
    pub(crate) fn start(program: &Path, command: &Launch<'_>, log: &Path) -> io::Result<Self> {
        let scope = command.scope.as_ref();
        let (words, output) = words(log, scope)?;
        // systemd-run(1) execs in place: the number is the daemon's.
        let mut daemon = match scope {
            Some(scope) => {
                let mut daemon = scope.command("");
                daemon.arg(program);
                daemon
            }
            None => Command::new(program),
        };
        daemon.args(command.arguments);
        daemon.envs(command.environment.iter().map(|(name, value)| (name, value.reveal())));
        // Our copy of the pipe is gone with this: it has to end with the daemon.
        let pid = session::start(&daemon, &output)?;
        // Not yet waited for: even if it has ended, the number is its own.
        let identity = Identity::of(pid)?;
        let identity = identity.unwrap_or(Identity { pid, start: 0, boot: String::new() });
        let ended = reap(move || {
            let pid = rustix::process::Pid::from_raw(pid);
            let status = retry_on_intr(|| waitpid(pid, WaitOptions::empty()))?;
            let (_, status) = status.ok_or(io::ErrorKind::Other)?;
            Ok(ExitStatus::from_raw(status.as_raw()))
        });
        Ok(Daemon { identity, ended, words })
    }

    /// How it ended, if it did.
    pub(crate) fn has_ended(&self) -> Option<ExitStatus> {
        self.ended.try_recv().ok()
    }

    /// How it ended, if it does within `bound`.
    pub(crate) fn wait(&self, bound: Duration) -> Option<ExitStatus> {
        self.ended.recv_timeout(bound).ok()
    }

    /// Waits until what it has said is in its log; for one that has ended that is soon.
    pub(crate) fn wait_for_words(&self, bound: Duration) {
        if !self.identity.is_alive() {
            let _ = self.words.wait_for_end(bound);
        }
    }
}

/// A pipe, and somebody who keeps what is written into it.
fn words(log: &Path, scope: Option<&Scope>) -> io::Result<(Words, PipeWriter)> {
    // New ones each time: an earlier daemon may still be writing into the old one.
    for file in [log, &drain::earlier(log)] {
        match fs::remove_file(file) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
    }
    let (reader, writer) = io::pipe()?;
    Ok((Words::keep(&reader, log, scope)?, writer))
}

/// Whenever it ends, tomorrow or next year, somebody has to reap it.
pub(crate) fn reap(
    wait: impl FnOnce() -> io::Result<ExitStatus> + Send + 'static,
) -> Receiver<ExitStatus> {
    let (tell, ended) = channel();
    thread::spawn(move || {
        if let Ok(status) = wait() {
            let _ = tell.send(status);
        }
    });
    ended
}

/// The command line and the whole environment of a daemon, and where it is to live.
pub(crate) struct Launch<'a> {
    pub(crate) scope: Option<Scope>,
    pub(crate) arguments: &'a [String],
    pub(crate) environment: &'a [(String, Secret)],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let pid = i32::try_from(std::process::id()).expect("a small number");
        let me = Identity::of(pid).expect("/proc is there").expect("I run");
        assert!(me.is_alive());
        assert!(!Identity { start: me.start + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot: "another".into(), ..me }.is_alive());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("true").spawn().expect("true is there");
        let pid = i32::try_from(child.id()).expect("a small number");
        let end = Instant::now() + Duration::from_secs(10);
        while running_since(pid).is_some() {
            assert!(Instant::now() < end, "true does not end");
            thread::yield_now();
        }
        child.wait().expect("it is ours");
    }
}
