//! What daemons say, for as long as they live: a pipe that nobody reads would stop one, and a file
//! would grow for ever. This program, as `dms-mount drain`, reads these pipes, and keeps the last words
//! of each daemon in a file of bounded size.
//!
//! It outlives us, and ends with the last of its daemons. One is kept for all that we start: to start one
//! for each takes longer than to hand it another pipe. A daemon in a scope has one to itself, in a scope.

mod keep;

use std::io::{self, IoSlice, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dms_cli::{JOURNAL_STREAM, journal_stream};
use dms_wire::Deadline;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

pub(crate) use keep::{earlier, main};

use crate::daemon::reap;
use crate::look::is_readable;
use crate::scope::Scope;

/// So many pipes one is handed at most: each takes two descriptors, of which a process has a thousand.
const PIPES: u64 = 100;

/// One that takes further pipes.
static KEPT: Mutex<Option<Arc<Drain>>> = Mutex::new(None);

/// The number of the last pipe that was handed over.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A running `dms-mount drain`, which tells by number which daemon has said its last word.
struct Drain {
    socket: OwnedFd,
    /// The number of its first pipe.
    first: u64,
}

/// The words of one daemon.
pub(crate) struct Words {
    drain: Arc<Drain>,
    number: u64,
}

impl Words {
    /// Has what comes out of this pipe kept in `log`, to its end. All logs are in one directory.
    pub(crate) fn keep(pipe: &PipeReader, log: &Path, scope: Option<&Scope>) -> io::Result<Words> {
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if scope.is_none()
            && let Some(drain) = &*kept
            && number < drain.first + PIPES
            && drain.hand_over(pipe, number, log).is_ok()
        {
            return Ok(Words { drain: Arc::clone(drain), number });
        }
        let drain = Arc::new(Drain::start(number, log, scope)?);
        drain.hand_over(pipe, number, log)?;
        if scope.is_none() {
            *kept = Some(Arc::clone(&drain));
        }
        Ok(Words { drain, number })
    }

    /// Waits for the last of them to be in the log. False: not in time, or nobody keeps them any more.
    pub(crate) fn wait_for_end(&self, bound: Duration) -> bool {
        let until = Deadline::after(bound);
        while is_readable(&self.drain.socket, until).unwrap_or(false) {
            match self.drain.next_end() {
                Some(number) if number == self.number => return true,
                // Of an earlier one.
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

impl Drain {
    fn start(first: u64, log: &Path, scope: Option<&Scope>) -> io::Result<Drain> {
        let directory = log.parent().unwrap_or(log);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut child = command(directory, scope).stdin(theirs).spawn()?;
        reap(move || child.wait());
        Ok(Drain { socket: ours, first })
    }

    /// Not at the price of waiting: one that stands still is not asked again.
    fn hand_over(&self, pipe: &PipeReader, number: u64, log: &Path) -> io::Result<()> {
        while self.next_end().is_some() {}
        let number = number.to_le_bytes();
        let name = log.file_name().unwrap_or_default().as_bytes();
        let pipes = [pipe.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&pipes));
        let words = [IoSlice::new(&number), IoSlice::new(name)];
        sendmsg(&self.socket, &words, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next number that it has told, if it has.
    fn next_end(&self) -> Option<u64> {
        let mut number = [0; 8];
        let (count, _) = recv(&self.socket, &mut number, RecvFlags::DONTWAIT).ok()?;
        (count == number.len()).then_some(u64::from_le_bytes(number))
    }
}

/// How it is started: with our standard error only if that is the journal. Somebody's pipe or
/// terminal is not ours to keep open for as long as a daemon lives.
fn command(directory: &Path, scope: Option<&Scope>) -> Command {
    // By our number: in between there may be another program, and an upgrade may have replaced our
    // file.
    let ourselves = format!("/proc/{}/exe", std::process::id());
    let mut command = match scope {
        Some(scope) => {
            let mut command = scope.command("-log");
            command.arg(ourselves);
            command
        }
        None => Command::new(ourselves),
    };
    command.args(["drain", "--"]).arg(directory).env_clear().stdout(Stdio::null());
    match journal_stream() {
        Some(stream) => command.env(JOURNAL_STREAM, stream),
        None => command.stderr(Stdio::null()),
    };
    command
}
