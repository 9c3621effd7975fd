//! One lock: a file, flocked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys::Alarm;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// This long.
    For(Duration),
}

/// A held lock. Dropping it releases it, unless a child inherited it ([`Lock::pass_on`]).
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock on `path`, creating the file if it is not there. `None`: somebody else had
    /// it all the while.
    ///
    /// The wait is one blocking flock(2), cut short by a timer: waiters queue in the kernel, and a
    /// lock is handed over at once.
    ///
    /// # Errors
    /// If the file cannot be opened (a symbolic link is never followed) or locked.
    pub fn take(path: &Path, mode: Mode, wait: Wait) -> io::Result<Option<Lock>> {
        let end = match wait {
            Wait::No => None,
            Wait::For(time) => Some(Instant::now() + time),
        };
        loop {
            let file = open(path)?;
            if !flock(&file, mode, end)? {
                return Ok(None);
            }
            if is_still_at(&file, path)? {
                return Ok(Some(Lock { file }));
            }
            // Somebody removed the file before we held it: ours would exclude nobody.
        }
    }

    /// Lets every child that is started while the result lives inherit the lock, also across
    /// exec: it is held until the last of them has ended.
    ///
    /// # Errors
    /// That of fcntl(2).
    pub fn pass_on(&self) -> io::Result<Passed> {
        let copy = fcntl(&self.file, FcntlArg::F_DUPFD(INHERITED))?;
        Ok(Passed { copy })
    }
}

/// The lowest number of a descriptor that a child inherits. Shell scripts use the single digits
/// for themselves (`exec 3<file`), and would close the lock without knowing.
const INHERITED: RawFd = 100;

/// A lock's descriptor that children inherit.
#[derive(Debug)]
pub struct Passed {
    copy: RawFd,
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Ours alone since it was made; the lock stays with the lock's own descriptor.
        let _ = nix::unistd::close(self.copy);
    }
}

/// Makes a directory for locks, and its parents: 0755, so that only its owner can plant files.
///
/// # Errors
/// If it cannot be made.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn open(path: &Path) -> io::Result<File> {
    // Never O_TRUNC, never a symbolic link; close-on-exec is Rust's default.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Whoever can open it can hold it: nobody but its owner.
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NOCTTY).bits())
        .open(path)
}

fn flock(file: &File, mode: Mode, end: Option<Instant>) -> io::Result<bool> {
    // By full name: std's own methods of these names shadow fs2's.
    let attempt = match mode {
        Mode::Shared => fs2::FileExt::try_lock_shared(file),
        Mode::Exclusive => fs2::FileExt::try_lock_exclusive(file),
    };
    match attempt {
        Ok(()) => return Ok(true),
        Err(error) if is_contended(&error) => {}
        Err(error) => return Err(error),
    }
    let Some(end) = end else { return Ok(false) };
    let _alarm = Alarm::at(end)?;
    loop {
        let attempt = match mode {
            Mode::Shared => fs2::FileExt::lock_shared(file),
            Mode::Exclusive => fs2::FileExt::lock_exclusive(file),
        };
        match attempt {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                if Instant::now() >= end {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn take(path: &Path, mode: Mode, wait: Wait) -> Option<Lock> {
        Lock::take(path, mode, wait).expect("the lock file can be opened")
    }

    #[test]
    fn a_second_taker_waits_and_gives_up_in_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        let _held = take(&path, Mode::Exclusive, Wait::No).expect("free");
        let start = Instant::now();
        assert!(take(&path, Mode::Shared, Wait::For(Duration::from_millis(80))).is_none());
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(80) && waited < Duration::from_secs(2));
        assert!(take(&path, Mode::Exclusive, Wait::No).is_none());
    }

    #[test]
    fn a_waiter_has_the_lock_as_soon_as_it_is_free() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        let held = take(&path, Mode::Exclusive, Wait::No).expect("free");
        let (started, wait) = mpsc::channel();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || {
                started.send(()).expect("the test waits");
                take(&path, Mode::Exclusive, Wait::For(Duration::from_secs(30))).is_some()
            }
        });
        wait.recv().expect("the waiter started");
        drop(held);
        assert!(waiter.join().expect("the waiter does not panic"));
    }

    #[test]
    fn shared_holders_stand_beside_each_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        let _one = take(&path, Mode::Shared, Wait::No).expect("free");
        let _two = take(&path, Mode::Shared, Wait::No).expect("shared");
        assert!(take(&path, Mode::Exclusive, Wait::No).is_none());
    }

    #[test]
    fn a_lock_file_that_was_removed_and_made_anew_is_another_lock() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        let old = take(&path, Mode::Exclusive, Wait::No).expect("free");
        std::fs::remove_file(&path).expect("it is there");
        let new = take(&path, Mode::Exclusive, Wait::No).expect("a new file");
        assert!(is_still_at(&new.file, &path).expect("it is there"));
        assert!(!is_still_at(&old.file, &path).expect("another is there"));
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("a fresh name");
        assert!(Lock::take(&path, Mode::Exclusive, Wait::No).is_err());
    }
}
