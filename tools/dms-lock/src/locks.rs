//! Named locks in one directory, taken in one order.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dms_cli::{Context, Exit, Failure};
use dms_flock::{Lock, Mode, Wait, make_dir};

/// The directory of this host's locks.
pub(crate) struct LockDir {
    path: PathBuf,
}

/// A lock that could not be had in time: its name, and how long was waited.
pub(crate) struct Busy {
    name: String,
    seconds: f64,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Busy { name, seconds } = self;
        // Whole seconds, as people set them, unless that would be none at all.
        let digits = usize::from(*seconds < 1.0);
        write!(f, "Could not acquire lock {name} after {seconds:.digits$} seconds")
    }
}

impl LockDir {
    /// Makes the directory if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        make_dir(path).context("unable to make lock directory", path.display())?;
        Ok(LockDir { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes every lock, or none: busy is the honest no.
    pub(crate) fn take(
        &self,
        names: &[String],
        mode: Mode,
        wait: Wait,
    ) -> Result<Vec<Lock>, Failure> {
        let wanted = names.iter().map(|name| (name.clone(), mode)).collect();
        self.try_take(wanted, wait)?.map_err(|busy| Failure::new(Exit::No, busy.to_string()))
    }

    /// Takes every lock, or none. Sorted by name, so that two callers cannot each hold what the
    /// other wants; the wait is for all of them together.
    pub(crate) fn try_take(
        &self,
        mut wanted: Vec<(String, Mode)>,
        wait: Wait,
    ) -> Result<Result<Vec<Lock>, Busy>, Failure> {
        // An exclusive wish sorts before a shared one for the same name, and swallows it.
        wanted.sort_by(|a, b| (&a.0, a.1 == Mode::Shared).cmp(&(&b.0, b.1 == Mode::Shared)));
        wanted.dedup_by(|a, b| a.0 == b.0);
        let start = Instant::now();
        let mut held = Vec::with_capacity(wanted.len());
        for (name, mode) in wanted {
            let left = match wait {
                Wait::No => Wait::No,
                Wait::For(time) => Wait::For(time.saturating_sub(start.elapsed())),
            };
            let path = self.path.join(format!("{name}.lock"));
            match Lock::take(&path, mode, left).context("unable to lock", path.display())? {
                Some(lock) => held.push(lock),
                None => return Ok(Err(Busy { name, seconds: start.elapsed().as_secs_f64() })),
            }
            log::debug!(
                "Successfully acquired lock for {name} ({mode:?}, after {:.3} s)",
                start.elapsed().as_secs_f64()
            );
        }
        Ok(Ok(held))
    }
}
