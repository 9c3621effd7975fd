//! The system calls that nix leaves unsafe.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
use nix::sys::signal::{SigHandler::Handler, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// Interrupts the blocking system calls of this thread from a moment on, until it is dropped.
pub(crate) struct Alarm {
    _timer: Timer,
    /// Which signals were blocked before.
    before: SigSet,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // What we become has it as whoever started us wanted it.
        let _ = self.before.thread_set_mask();
    }
}

impl Alarm {
    /// From `end` on. It repeats: a signal that comes between the caller's look at the clock and
    /// its system call would otherwise be lost.
    pub(crate) fn at(end: Instant) -> io::Result<Alarm> {
        static INSTALLED: OnceLock<nix::Result<()>> = OnceLock::new();
        (*INSTALLED.get_or_init(install_handler))?;
        // Whoever started us may have blocked it, and there would be no end to the wait.
        let before = SigSet::thread_get_mask()?;
        SigSet::from(Signal::SIGALRM).thread_unblock()?;
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
        Ok(Alarm { _timer: timer, before })
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

/// Whether others have the file open for writing. It has to be open for reading only. `None`: we are
/// not told.
pub(crate) fn is_open_for_writing(fd: BorrowedFd<'_>) -> Option<bool> {
    can_lease(fd, libc::F_RDLCK).map(|can| !can)
}

/// Whether others have the file open at all.
pub(crate) fn is_open_elsewhere(fd: BorrowedFd<'_>) -> Option<bool> {
    can_lease(fd, libc::F_WRLCK).map(|can| !can)
}

/// Whether the kernel gives us a lease on the file, which is given back at once: of reading, while
/// nobody has it open for writing; of writing, while nobody else has it open. `None`: the
/// file is not ours, or its file system has no leases.
fn can_lease(fd: BorrowedFd<'_>, kind: libc::c_int) -> Option<bool> {
    /// Which signal tells of it: fcntl(2) has it, libc has not. This on every machine but PA-RISC.
    const F_SETSIG: libc::c_int = 10;
    let fd = fd.as_raw_fd();
    // SAFETY: three commands of fcntl(2) that take a number, on a descriptor that is open. Whoever
    // opens the file in between waits until the lease is gone, and has us told by a signal: by one
    // that does nothing unless somebody handles it, instead of SIGIO, which ends a process.
    let leased = unsafe {
        Errno::result(libc::fcntl(fd, F_SETSIG, libc::SIGURG))
            .and_then(|_| Errno::result(libc::fcntl(fd, libc::F_SETLEASE, kind)))
            .and_then(|_| Errno::result(libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK)))
    };
    match leased {
        Ok(_) => Some(true),
        Err(Errno::EAGAIN) => Some(false),
        Err(_) => None,
    }
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
