//! The child and its two pipes.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::descendants::Descendants;

/// So much of its output is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// How often to look whether it has ended: its output may be held open by others.
const LOOK: Duration = Duration::from_millis(200);

/// How often to look whether it has ended when that is all there is to wait for, and the kernel has
/// no way to tell.
const GLANCE: Duration = Duration::from_millis(2);

/// How long a filter may take to end once it has been told to.
const PARTING: Duration = Duration::from_secs(2);

/// A running filter.
#[derive(Debug)]
pub struct Filter {
    child: Child,
    /// `None` once it was closed.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What was read last of its output.
    chunk: Vec<u8>,
    /// The longest answer that is one, in bytes.
    longest: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The filter closed its output.
    Ended,
    /// It did not answer in time.
    TimedOut,
    /// It said more than one line, or one that is too long, or it answered before it had read the
    /// question.
    Confused,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Ended => "the filter ended before it answered",
            Lost::TimedOut => "timeout: the filter did not answer in time",
            Lost::Confused => "the filter did not answer with one line",
        })
    }
}

impl Filter {
    /// Starts it, as the leader of a process group. Its answers may have `longest` bytes.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn start(command: &mut Command, longest: usize) -> io::Result<Filter> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("it has no pipes"));
        };
        unblock(stdin.as_fd())?;
        unblock(stdout.as_fd())?;
        Ok(Filter { child, stdin: Some(stdin), stdout, chunk: vec![0; CHUNK], longest })
    }

    /// The leader of its process group.
    pub fn leader(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, or said something that nobody asked for, since its last answer.
    pub fn is_spent(&mut self) -> bool {
        // Somebody else may still hold its output open.
        if self.has_ended() {
            return true;
        }
        let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR))
    }

    /// Hands it a line and waits for its answer. Both at once: it may say something before it has
    /// read the whole line.
    ///
    /// # Errors
    /// If it does not answer with one line in time. Then it is of no more use.
    pub fn ask(&mut self, line: &[u8], patience: Duration) -> Result<Vec<u8>, Lost> {
        let end = Instant::now() + patience;
        if patience.is_zero() {
            // Nor is it told anything.
            return Err(Lost::TimedOut);
        }
        let question = [line, b"\n"].concat();
        // Mostly the pipe takes it whole.
        let mut unsent = self.send(&question);
        let mut answer = Vec::new();
        loop {
            let is_ready = self.wait_ready(!unsent.is_empty(), end)?;
            unsent = self.send(unsent);
            // Looked at before its output: whatever it has said by now is in the pipe.
            let has_ended = !is_ready && self.has_ended();
            let length = answer.len();
            if self.receive(&mut answer)? {
                // The next line would be taken for the rest of this one.
                return if unsent.is_empty() { Ok(answer) } else { Err(Lost::Confused) };
            }
            if has_ended && answer.len() == length {
                return Err(Lost::Ended);
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it says something, or can be told something; false: for a moment, and in vain.
    fn wait_ready(&self, unsent: bool, end: Instant) -> Result<bool, Lost> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Lost::TimedOut);
        }
        let mut fds = vec![PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
        if let Some(stdin) = self.stdin.as_ref().filter(|_| unsent) {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, until(left.min(LOOK))) {
            Ok(0) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(_) => Err(Lost::Ended),
        }
    }

    /// Sends what the pipe takes; returns the rest.
    fn send<'a>(&mut self, unsent: &'a [u8]) -> &'a [u8] {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !unsent.is_empty()) else { return &[] };
        match stdin.write(unsent) {
            Ok(sent) => &unsent[sent..],
            Err(why) if is_for_later(&why) => unsent,
            // It reads no more, but may still have something to say.
            Err(_) => &[],
        }
    }

    /// Takes in what it says; true once that is one whole line.
    fn receive(&mut self, answer: &mut Vec<u8>) -> Result<bool, Lost> {
        match self.stdout.read(&mut self.chunk) {
            Ok(0) => Err(Lost::Ended),
            Ok(length) => {
                answer.extend_from_slice(&self.chunk[..length]);
                match answer.iter().position(|&byte| byte == b'\n') {
                    None if answer.len() > self.longest => Err(Lost::Confused),
                    None => Ok(false),
                    Some(at) if at + 1 == answer.len() => {
                        answer.pop();
                        Ok(true)
                    }
                    Some(_) => Err(Lost::Confused),
                }
            }
            Err(why) if is_for_later(&why) => Ok(false),
            Err(_) => Err(Lost::Ended),
        }
    }

    /// Ends its input, and waits for its end; kills what is left of it after `patience`. `None`:
    /// not even that ends it.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn finish(mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.stdin = None;
        match self.wait(patience)? {
            Some(status) => Ok(Some(status)),
            None => self.kill(),
        }
    }

    /// Ends what is left of one that has ended by itself, or says what nobody asked for. A stage of
    /// it that minds SIGTERM may still finish what it has begun.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn end(mut self) -> io::Result<Option<ExitStatus>> {
        self.stdin = None;
        self.signal(Signal::SIGTERM);
        match self.wait(PARTING)? {
            Some(status) => Ok(Some(status)),
            None => self.kill(),
        }
    }

    /// Ends one that hangs, with all that it has started in its session: asks its group, and kills
    /// what is still there 2 s later. `None`: that does not end it (it hangs in the kernel).
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(mut self) -> io::Result<Option<ExitStatus>> {
        self.stdin = None;
        let end = Instant::now() + PARTING;
        let started = Descendants::of(self.child.id());
        self.signal(Signal::SIGTERM);
        let status = self.wait(PARTING)?;
        while started.is_alive() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Those that were started since, too.
        Descendants::of(self.child.id()).kill();
        started.kill();
        if status.is_some() { Ok(status) } else { self.wait(PARTING) }
    }

    fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        // Without one (Linux before 5.3) it is looked at again and again.
        let handle = Pid::from_child(&self.child);
        let handle = pidfd_open(handle, PidfdFlags::empty()).ok();
        loop {
            let status = self.child.try_wait()?;
            let left = end.saturating_duration_since(Instant::now());
            if status.is_some() || left.is_zero() {
                return Ok(status);
            }
            let longest = if handle.is_some() { left } else { left.min(GLANCE) };
            let mut fds: Vec<PollFd<'_>> = Vec::new();
            fds.extend(handle.iter().map(|handle| PollFd::new(handle.as_fd(), PollFlags::POLLIN)));
            // Whatever comes of it, it is looked at again.
            let _ = poll(&mut fds, until(longest));
        }
    }

    fn signal(&self, signal: Signal) {
        // A group that has a process keeps its number; it may have none left.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}

/// Rounded up, or the last millisecond would be spent in a busy loop.
fn until(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}

fn is_for_later(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn unblock(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
