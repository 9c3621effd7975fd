//! The two system calls that nix leaves unsafe.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
use nix::sys::signal::{SigHandler::Handler, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// Interrupts the blocking system calls of this thread from a moment on, until it is dropped.
pub(crate) struct Alarm {
    _timer: Timer,
}

impl Alarm {
    /// From `end` on. It repeats: a signal that comes between the caller's look at the clock and
    /// its system call would otherwise be lost.
    pub(crate) fn at(end: Instant) -> io::Result<Alarm> {
        static INSTALLED: OnceLock<nix::Result<()>> = OnceLock::new();
        (*INSTALLED.get_or_init(install_handler))?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: Signal::SIGALRM,
            thread_id: gettid().as_raw(),
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        // Zero would disarm it.
        let wait = end.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let expiration = Expiration::IntervalDelayed(wait.into(), Duration::from_millis(20).into());
        timer.set(expiration, TimerSetTimeFlags::empty())?;
        Ok(Alarm { _timer: timer })
    }
}

fn install_handler() -> nix::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let handler: SigHandler = Handler(nothing);
    // Without SA_RESTART: that the system call ends is the whole point.
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler touches nothing at all, so it may run at any moment.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    Ok(())
}

/// Marks every descriptor that this process was given, but for the standard three, so that no
/// child inherits it: a daemon that is started later must not keep its parent's locks.
///
/// # Errors
/// If /proc cannot be read.
pub fn keep_from_children() -> io::Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let descriptors: Vec<RawFd> =
        listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for raw in descriptors.into_iter().filter(|&raw| raw > 2) {
        // SAFETY: only used for one fcntl(2), which refuses a number that is no descriptor (the
        // one of the listing itself, closed by now).
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    Ok(())
}
