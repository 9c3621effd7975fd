//! Several locks at once, taken in one order.

use std::fmt;
use std::time::{Duration, Instant};

use dms_cli::{Context, Failure};
use dms_flock::{Lock, Mode, Wait};

use crate::dir::LockDir;
use crate::held::{Held, Standing};
use crate::name::file_name;
use crate::turn::Turn;
use crate::who;

/// From how long on a wait is worth a line to everybody.
const LONG: Duration = Duration::from_secs(1);

/// The locks of this host, as this process can take them.
pub(crate) struct Locks<'a> {
    pub(crate) dir: &'a LockDir,
    /// What our ancestors hold.
    pub(crate) held: Held,
}

/// Locks that were taken, and how long they were waited for: not at all if they were free.
pub(crate) struct Taken {
    pub(crate) locks: Vec<Lock>,
    pub(crate) waited: Duration,
}

/// Why the locks cannot be had.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Others had one of them for too long.
    Busy { name: String, waited: Duration, who: String },
    /// One that we hold shared was wanted exclusive.
    Upgrade { name: String },
    /// One of them is held by a process that waits for us.
    Waiting { name: String, pid: i32 },
}

impl Refused {
    /// Whether it would be the same at any time.
    pub(crate) fn is_for_ever(&self) -> bool {
        !matches!(self, Refused::Busy { .. })
    }

    /// How long was waited.
    pub(crate) fn waited(&self) -> Duration {
        match self {
            Refused::Busy { waited, .. } => *waited,
            Refused::Upgrade { .. } | Refused::Waiting { .. } => Duration::ZERO,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Busy { name, waited, who } => {
                // Whole seconds, as people set them, unless that would be none at all.
                let seconds = waited.as_secs_f64();
                let digits = usize::from(seconds < 1.0);
                write!(f, "Could not acquire lock {name} after {seconds:.digits$} seconds: {who}")
            }
            Refused::Upgrade { name } => {
                write!(f, "lock {name} is held shared around this, and cannot be had exclusive")
            }
            Refused::Waiting { name, pid } => {
                write!(f, "lock {name} is held by pid {pid}, which waits for this")
            }
        }
    }
}

impl Locks<'_> {
    /// Takes every lock, or none. Sorted by name, so that two callers cannot each hold what the
    /// other wants; the wait is for all of them together.
    pub(crate) fn take(
        &self,
        mut wanted: Vec<(String, Mode)>,
        wait: Wait,
    ) -> Result<Result<Taken, Refused>, Failure> {
        // An exclusive wish sorts before a shared one for the same name, and swallows it.
        wanted.sort_by(|a, b| (&a.0, a.1 == Mode::Shared).cmp(&(&b.0, b.1 == Mode::Shared)));
        wanted.dedup_by(|a, b| a.0 == b.0);
        let start = Instant::now();
        let (mut locks, mut waited) = (Vec::with_capacity(wanted.len()), Duration::ZERO);
        for (name, mode) in wanted {
            let left = match wait {
                Wait::No => Wait::No,
                Wait::For(time) => Wait::For(time.saturating_sub(start.elapsed())),
            };
            match self.take_one(name, mode, left, start)? {
                Ok((lock, time)) => {
                    locks.push(lock);
                    waited += time;
                }
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(Taken { locks, waited }))
    }

    fn take_one(
        &self,
        name: String,
        mode: Mode,
        wait: Wait,
        start: Instant,
    ) -> Result<Result<(Lock, Duration), Refused>, Failure> {
        let file = file_name(&name);
        let level = match self.held.standing(self.dir, &file, mode) {
            Standing::Level(level) => level,
            Standing::Shared => return Ok(Err(Refused::Upgrade { name })),
            Standing::Waiting(pid) => return Ok(Err(Refused::Waiting { name, pid })),
        };
        let (path, gate) = (self.dir.lock(&file, level), self.dir.gate(&file));
        let access = self.dir.access();
        let taken = match level {
            0 => Turn { lock: &path, gate: &gate, access }.take(mode, wait),
            // Only those below one holder come there.
            _ => Lock::take_as(&path, access, mode, wait).map(|taken| {
                taken.map(|lock| {
                    let waited = lock.file().waited();
                    (lock, waited)
                })
            }),
        };
        let Some((lock, waited)) = taken.context("unable to lock", path.display())? else {
            let who = who::describe(&path, &gate);
            return Ok(Err(Refused::Busy { name, waited: start.elapsed(), who }));
        };
        let weight = if waited >= LONG { log::Level::Info } else { log::Level::Debug };
        let nested = if level == 0 { String::new() } else { format!(", level {level}") };
        let seconds = waited.as_secs_f64();
        let what = "Successfully acquired lock for";
        log::log!(weight, "{what} {name} ({mode:?}{nested}, after {seconds:.3} s)");
        Ok(Ok((lock, waited)))
    }
}
