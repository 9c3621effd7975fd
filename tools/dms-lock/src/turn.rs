//! A lock that nobody is kept from for ever.
//!
//! flock(2) hands a lock to whoever comes first once it is free, and lets shared holders in beside
//! each other whoever waits. So ours queue at a gate, a second lock: only the first of them asks for
//! the lock itself, and a stream of shared holders ends where somebody waits to be alone. Strangers
//! know no gate. One that only tries now and then, as Python clients do, would find the lock free as
//! good as never while ours hand it over to each other: so ours leave it free for a while, now and
//! then, if there is such a one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dms_flock::{Access, Lock, LockFile, Mode, Wait};

use crate::who;

/// How long the lock is left free: longer than the 100 ms after which Python clients try again.
const WINDOW: Duration = Duration::from_millis(150);

/// How long ours, who want it shared, wait for the others to let go of it for that.
const DRAIN: Duration = Duration::from_secs(2);

/// At most one part of so many of the time is spent on strangers.
const SHARE: u32 = 5;

/// What it costs to look for strangers among all processes, and more.
const LOOK: Duration = Duration::from_millis(200);

/// How long somebody who does not want to wait gives others to get through the gate.
const PASSING: Duration = Duration::from_millis(10);

/// Where a lock is, and where its queue.
pub(crate) struct Turn<'a> {
    pub(crate) lock: &'a Path,
    pub(crate) gate: &'a Path,
    pub(crate) access: Access,
}

/// A lock, and how long it was waited for: nothing if it was free.
type Taken = (Lock, Duration);

impl Turn<'_> {
    /// Takes the lock; `None`: somebody else had it all the while, or was first.
    pub(crate) fn take(&self, mode: Mode, wait: Wait) -> io::Result<Option<Taken>> {
        let end = wait.end();
        let at_gate = match (mode, wait) {
            // Whoever only tries comes first or not at all, as strangers do.
            (Mode::Exclusive, Wait::No) => return self.try_take(mode),
            // But a stream of those who come shared must not keep out one who waits to be alone.
            (Mode::Shared, Wait::No) => Wait::For(PASSING),
            (_, wait) => wait,
        };
        let gate = Lock::take_as(self.gate, self.access, Mode::Exclusive, at_gate)?;
        match (gate, end) {
            (None, _) => Ok(None),
            (Some(_gate), None) => self.try_take(mode),
            (Some(gate), Some(end)) => self.take_as_first(&gate, mode, end),
        }
    }

    fn try_take(&self, mode: Mode) -> io::Result<Option<Taken>> {
        let lock = Lock::take_as(self.lock, self.access, mode, Wait::No)?;
        Ok(lock.map(|lock| (lock, Duration::ZERO)))
    }

    fn take_as_first(&self, gate: &Lock, mode: Mode, end: Instant) -> io::Result<Option<Taken>> {
        let mut waited = gate.file().waited();
        loop {
            let file = LockFile::open(self.lock, self.access)?;
            if mode == Mode::Shared {
                waited += let_in_before_shared(gate, &file, end)?;
            }
            if !file.lock(mode, Some(end))? {
                return Ok(None);
            }
            if mode == Mode::Exclusive {
                let pause = let_in(gate, &file, end)?;
                waited += pause;
                if !pause.is_zero() && !file.lock(mode, Some(end))? {
                    return Ok(None);
                }
            }
            waited += file.waited();
            if let Some(lock) = Lock::of(file)? {
                return Ok(Some((lock, waited)));
            }
        }
    }
}

/// Lets strangers in before us, who hold the lock alone, if there are some and that is due. Returns
/// how long the lock was left free; if it was, we do not hold it any more.
fn let_in(gate: &Lock, file: &LockFile, end: Instant) -> io::Result<Duration> {
    // Of ours, only the first at the gate has the file open.
    let is_open = file.is_open_elsewhere().unwrap_or_else(|| is_busy(gate, file));
    if !is_open || !is_due(gate) || !has_strangers(gate, file)? {
        return Ok(Duration::ZERO);
    }
    leave_free(gate, file, end)
}

/// The same for us who want it shared, and do not hold it yet: the others who share it have to let
/// go of it first, and they are not waited for as long as by somebody who has to be alone.
fn let_in_before_shared(gate: &Lock, file: &LockFile, end: Instant) -> io::Result<Duration> {
    let is_open = || file.is_open_for_writing().unwrap_or_else(|| is_busy(gate, file));
    if !is_open() || !is_due(gate) {
        return Ok(Duration::ZERO);
    }
    let begun = Instant::now();
    if !file.lock(Mode::Exclusive, Some(end.min(begun + DRAIN)))? {
        note(gate, begun.elapsed())?;
        return Ok(Duration::ZERO);
    }
    // It may have been the holder that we have waited for.
    if is_open() { leave_free(gate, file, end) } else { Ok(Duration::ZERO) }
}

/// Whether we had to wait: where nobody tells whether there are strangers, there may be some then.
fn is_busy(gate: &Lock, file: &LockFile) -> bool {
    !(gate.file().waited() + file.waited()).is_zero()
}

fn leave_free(gate: &Lock, file: &LockFile, end: Instant) -> io::Result<Duration> {
    // Not at the price of our own time-out.
    if end.saturating_duration_since(Instant::now()) <= WINDOW * 2 {
        return Ok(Duration::ZERO);
    }
    file.unlock()?;
    // The one wait for a time instead of an event: nothing tells that somebody tries in vain.
    thread::sleep(WINDOW);
    note(gate, WINDOW)?;
    Ok(WINDOW)
}

/// Whether anybody beside us, who hold the lock, really has the file open.
fn has_strangers(gate: &Lock, file: &LockFile) -> io::Result<bool> {
    if file.is_open_for_writing() != Some(false) {
        return Ok(true);
    }
    // It may be the one before us, who has let go of the lock and not yet quite of the file: that
    // one is not found any more.
    if who::has_open(file.path(), std::process::id()) {
        return Ok(true);
    }
    note(gate, LOOK)?;
    Ok(false)
}

/// Whether strangers have waited long enough, as the gate's file has it.
fn is_due(gate: &Lock) -> bool {
    let text = fs::read_to_string(gate.file().path()).unwrap_or_default();
    let Ok(due) = text.trim().parse::<u64>() else { return true };
    let now = LockFile::moment();
    // A moment that is far away is of an earlier boot.
    now >= due || due > now + 60_000
}

/// Notes when it will be due again, after this has been spent on it.
fn note(gate: &Lock, spent: Duration) -> io::Result<()> {
    let pause = u64::try_from((spent * SHARE).as_millis()).unwrap_or(u64::MAX / 2);
    let text = format!("{:020}\n", LockFile::moment() + pause);
    let file = OpenOptions::new().write(true).open(gate.file().path())?;
    file.write_all_at(text.as_bytes(), 0)
}
