//! One lock: a file, flocked.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};

use crate::{Access, LockFile};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Wait {
    /// The moment when it is over, if it is a wait at all.
    pub fn end(self) -> Option<Instant> {
        match self {
            Wait::No => None,
            Wait::For(time) => Some(Instant::now() + time),
        }
    }
}

/// A held lock. Dropping it releases it, unless a child inherited it ([`Lock::pass_on`]).
#[derive(Debug)]
pub struct Lock {
    file: LockFile,
}

impl Lock {
    /// Takes the lock on `path`, creating the file, for its owner, if it is not there. `None`:
    /// somebody else had it all the while.
    ///
    /// # Errors
    /// If the file cannot be opened (a symbolic link is never followed) or locked.
    pub fn take(path: &Path, mode: Mode, wait: Wait) -> io::Result<Option<Lock>> {
        Lock::take_as(path, Access::Owner, mode, wait)
    }

    /// The same, with a say in who may use the file that is made.
    ///
    /// # Errors
    /// As above.
    pub fn take_as(
        path: &Path,
        access: Access,
        mode: Mode,
        wait: Wait,
    ) -> io::Result<Option<Lock>> {
        let end = wait.end();
        loop {
            let file = LockFile::open(path, access)?;
            if !file.lock(mode, end)? {
                return Ok(None);
            }
            if let Some(lock) = Lock::of(file)? {
                return Ok(Some(lock));
            }
        }
    }

    /// The lock of a file that was locked just now. `None`: somebody removed the file before we
    /// held it, and it excludes nobody.
    ///
    /// # Errors
    /// If its path cannot be looked at.
    pub fn of(file: LockFile) -> io::Result<Option<Lock>> {
        Ok(file.is_there()?.then_some(Lock { file }))
    }

    /// Its file.
    pub fn file(&self) -> &LockFile {
        &self.file
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

impl Passed {
    /// Its number, also in them.
    pub fn number(&self) -> RawFd {
        self.copy
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Ours alone since it was made; the lock stays with the lock's own descriptor.
        let _ = nix::unistd::close(self.copy);
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
        assert!(new.file.is_there().expect("it is there"));
        assert!(!old.file.is_there().expect("another is there"));
    }

    #[test]
    fn whoever_waited_for_a_file_that_was_removed_locks_the_one_that_is_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        let held = take(&path, Mode::Exclusive, Wait::No).expect("free");
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || take(&path, Mode::Exclusive, Wait::For(Duration::from_secs(30)))
        });
        // It has the file open, whether it waits by now or not.
        let waits = || {
            let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let opens = fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|at| at == path));
            opens.count() == 2
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !waits() && Instant::now() < end {
            std::thread::yield_now();
        }
        std::fs::remove_file(&path).expect("it is there");
        drop(held);
        let got = waiter.join().expect("it does not panic").expect("it is free");
        assert!(got.file().is_there().expect("it can be looked at"));
        assert!(take(&path, Mode::Shared, Wait::No).is_none(), "it locked what is not there");
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.lock");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("a fresh name");
        assert!(Lock::take(&path, Mode::Exclusive, Wait::No).is_err());
    }
}
