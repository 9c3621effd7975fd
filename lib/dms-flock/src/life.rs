//! Life locks: whether a run is alive is a lock, never a process id.
//!
//! A run (a pipeline, a command) holds a lock of its own, which all its processes inherit, and
//! knows its path from the environment. Whoever can take that lock knows that all of them ended.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Access, Lock, Mode, Passed, Wait};

/// The environment variable that tells a run's processes the path of its life lock.
pub const VARIABLE: &str = "DMS_LIFE_LOCK";

/// The environment variable that tells a run's processes that it has one request at a time: when
/// it is given the next one, the one before is over, recorded or not.
pub const ONE_AT_A_TIME: &str = "DMS_ONE_AT_A_TIME";

/// Whether this process belongs to such a run.
pub fn is_one_at_a_time() -> bool {
    std::env::var_os(ONE_AT_A_TIME).is_some()
}

/// How many files of dead runs may lie about before a new run sweeps them away.
const SWEEP_ABOVE: usize = 32;

/// The life lock of a new run.
#[derive(Debug)]
pub struct Life {
    lock: Lock,
    path: PathBuf,
}

impl Life {
    /// Begins a run: takes a lock that nobody ever had, in `<lock dir>/life`.
    ///
    /// # Errors
    /// If the directory or the file cannot be made.
    pub fn begin(lock_dir: &Path, access: Access, name: &str) -> io::Result<Life> {
        let dir = lock_dir.join("life");
        let path = dir.join(name);
        // One that is there may have to be opened to the group.
        if access != Access::Owner {
            access.make_dir(&dir)?;
        }
        // It is nobody else's, but a sweep may be looking at it.
        let wait = Wait::For(Duration::from_secs(5));
        let take = || Lock::take_as(&path, access, Mode::Exclusive, wait);
        let taken = match take() {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                access.make_dir(&dir)?;
                take()
            }
            taken => taken,
        };
        // One run in eight or so: whoever starts many is not to count files each time.
        if name.ends_with(['0', '8']) {
            sweep(&dir)?;
        }
        match taken? {
            Some(lock) => Ok(Life { lock, path }),
            None => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the name is in use")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the children that are started while the result lives belong to the run.
    ///
    /// # Errors
    /// That of fcntl(2).
    pub fn pass_on(&self) -> io::Result<Passed> {
        self.lock.pass_on()
    }
}

/// Whether the run with this life lock has ended: it can be taken, or it has been swept away.
///
/// # Errors
/// If the file is there but cannot be locked.
pub fn has_ended(path: &Path) -> io::Result<bool> {
    if !path.try_exists()? {
        return Ok(true);
    }
    Ok(Lock::take(path, Mode::Exclusive, Wait::No)?.is_some())
}

/// Notes that our run has given something up that others may be waiting for. Without a run, there
/// is nowhere to note it.
///
/// # Errors
/// If the life lock's file cannot be written.
pub fn abandon(what: &str) -> io::Result<()> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("{what}\n").as_bytes())
}

/// Whether the run with this life lock has given this up.
pub fn has_abandoned(path: &Path, what: &str) -> bool {
    // A file that cannot be read says nothing.
    std::fs::read_to_string(path).is_ok_and(|notes| notes.lines().any(|line| line == what))
}

/// Removes the file of a run that has ended; one that is alive stays.
///
/// # Errors
/// If it is there but cannot be locked or removed.
pub fn bury(path: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    // Removed while it is held: nobody can take it for their own in between.
    if let Some(_held) = Lock::take(path, Mode::Exclusive, Wait::No)? {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the files of runs that have ended; returns how many, and how many live.
///
/// # Errors
/// If the directory is there and cannot be read.
pub fn clear(lock_dir: &Path) -> io::Result<(usize, usize)> {
    let (mut removed, mut alive) = (0, 0);
    for file in files(&lock_dir.join("life"))? {
        // One that we may not touch counts as alive.
        let _ = bury(&file);
        match file.exists() {
            true => alive += 1,
            false => removed += 1,
        }
    }
    Ok((removed, alive))
}

/// A command that took our place cannot clean up after itself: the next ones do, now and then.
fn sweep(dir: &Path) -> io::Result<()> {
    let files = files(dir)?;
    if files.len() > SWEEP_ABOVE {
        for file in files {
            // One that we may not touch is another user's to sweep.
            let _ = bury(&file);
        }
    }
    Ok(())
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_alive_as_long_as_its_lock_is_held() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let life = Life::begin(dir.path(), Access::Owner, "one").expect("a temporary directory");
        let path = life.path().to_owned();
        assert!(!has_ended(&path).expect("it can be opened"));
        bury(&path).expect("it can be opened");
        assert!(path.exists(), "a living run was buried");
        drop(life);
        assert!(has_ended(&path).expect("it can be opened"));
        bury(&path).expect("it can be removed");
        assert!(!path.exists() && has_ended(&path).expect("gone is ended"));
    }

    #[test]
    fn the_files_of_ended_runs_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for run in 0..100 {
            let life = Life::begin(dir.path(), Access::Owner, &run.to_string());
            drop(life.expect("a temporary directory"));
        }
        let left = std::fs::read_dir(dir.path().join("life")).expect("it was made").count();
        assert!(left <= SWEEP_ABOVE + 10, "{left} files");
    }
}
