//! A lock file that is open, locked or not.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::statfs::{NFS_SUPER_MAGIC, fstatfs};
use nix::time::{ClockId, clock_gettime};

use crate::access::is_same;
use crate::sys::{self, Alarm};
use crate::{Access, Mode};

/// A lock file, open for this process alone.
///
/// Where the open file stands says since when it has waited for the lock or held it, in
/// milliseconds of `CLOCK_BOOTTIME`: the kernel shows that beside the lock, for each holder, and it
/// ends with the holder. Nothing is ever read from the file.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
    /// What it was when it was opened: device and number do not change.
    opened: Metadata,
    /// How long it was waited for, in microseconds.
    waited: AtomicU64,
}

impl LockFile {
    /// Opens it, and makes it if it is not there. Open for reading only: so those who have it open
    /// for writing are others ([`LockFile::is_open_for_writing`]).
    ///
    /// # Errors
    /// If it cannot be opened, or is no plain file with one name; a symbolic link is never followed.
    pub fn open(path: &Path, access: Access) -> io::Result<LockFile> {
        // Never O_TRUNC, never a symbolic link, never the wait for the other end of a pipe;
        // close-on-exec is Rust's default.
        let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).mode(access.file_mode()).custom_flags(flags.bits());
        let mut file = options.open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Err(io::Error::other("it is not a plain file"));
        }
        // Somebody else's file, that is made a lock's by another name, must not become the group's.
        if opened.nlink() > 1 {
            return Err(io::Error::other("it has another name"));
        }
        // There an exclusive flock(2) is a lock of bytes, which has to be able to write them.
        if fstatfs(&file).is_ok_and(|found| found.filesystem_type() == NFS_SUPER_MAGIC) {
            file = options.write(true).open(path)?;
        }
        access.share_file(&file, &opened)?;
        Ok(LockFile { file, path: path.to_owned(), opened, waited: AtomicU64::new(0) })
    }

    /// Locks it; false: somebody else had it until `end`, or has it, without one.
    ///
    /// The wait is one blocking flock(2), cut short by a timer: waiters queue in the kernel, and a
    /// lock is handed over at once.
    ///
    /// # Errors
    /// That of flock(2).
    pub fn lock(&self, mode: Mode, end: Option<Instant>) -> io::Result<bool> {
        if !self.try_lock(mode)? {
            let Some(end) = end else { return Ok(false) };
            let begun = Instant::now();
            let is_ours = self.wait(mode, end)?;
            let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.waited.fetch_add(waited, Ordering::Relaxed);
            if !is_ours {
                return Ok(false);
            }
        }
        self.note_moment();
        Ok(true)
    }

    fn try_lock(&self, mode: Mode) -> io::Result<bool> {
        // By full name: std's own methods of these names shadow fs2's.
        let attempt = match mode {
            Mode::Shared => fs2::FileExt::try_lock_shared(&self.file),
            Mode::Exclusive => fs2::FileExt::try_lock_exclusive(&self.file),
        };
        match attempt {
            Ok(()) => Ok(true),
            Err(why) if why.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    fn wait(&self, mode: Mode, end: Instant) -> io::Result<bool> {
        self.note_moment();
        let _alarm = Alarm::at(end)?;
        loop {
            let attempt = match mode {
                Mode::Shared => fs2::FileExt::lock_shared(&self.file),
                Mode::Exclusive => fs2::FileExt::lock_exclusive(&self.file),
            };
            match attempt {
                Ok(()) => return Ok(true),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {
                    if Instant::now() >= end {
                        return Ok(false);
                    }
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// How long the lock was waited for; nothing if it was free.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited.load(Ordering::Relaxed))
    }

    /// Lets it go. Whoever inherited it has it no more, either.
    ///
    /// # Errors
    /// That of flock(2).
    pub fn unlock(&self) -> io::Result<()> {
        fs2::FileExt::unlock(&self.file)
    }

    /// Whether it is still the file at its path. If somebody has removed that, a lock on ours
    /// excludes nobody.
    ///
    /// # Errors
    /// If the path cannot be looked at.
    pub fn is_there(&self) -> io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => Ok(is_same(&self.opened, &there)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Whether others have it open for writing. None of ours does, so they are strangers, and they
    /// want the lock or have it. `None`: only the file's owner and root are told.
    pub fn is_open_for_writing(&self) -> Option<bool> {
        sys::is_open_for_writing(self.as_fd())
    }

    /// Whether anybody else has it open. `None`: as above.
    pub fn is_open_elsewhere(&self) -> Option<bool> {
        sys::is_open_elsewhere(self.as_fd())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn note_moment(&self) {
        // Only people look at it.
        let _ = (&self.file).seek(SeekFrom::Start(LockFile::moment()));
    }

    /// Now, as open lock files note it.
    pub fn moment() -> u64 {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or_default()
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
