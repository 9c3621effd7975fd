//! Who may use lock files: whoever can open one can hold it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, fchown, geteuid};

/// Who may use the lock files and directories that we make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Their owner: 0600, 0755.
    #[default]
    Owner,
    /// The members of the group with this number, too: 0660, 2770.
    Group(u32),
}

impl Access {
    /// As a lock directory says by itself: one that its group may write to was made for it.
    pub fn of_directory(path: &Path) -> Access {
        match fs::metadata(path) {
            Ok(seen) if seen.mode() & 0o020 != 0 => Access::Group(seen.gid()),
            _ => Access::Owner,
        }
    }

    /// The permissions of a lock file.
    pub(crate) fn file_mode(self) -> u32 {
        match self {
            Access::Owner => 0o600,
            Access::Group(_) => 0o660,
        }
    }

    /// Makes a directory, and its parents. One of ours that is there is opened to the group.
    ///
    /// # Errors
    /// If it cannot be made; for a group, also if it is a symbolic link.
    pub fn make_dir(self, path: &Path) -> io::Result<()> {
        let Access::Group(group) = self else {
            return if path.is_dir() { Ok(()) } else { make_dir(path) };
        };
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        // Nobody gets in before it is what it has to be.
        match DirBuilder::new().mode(0o700).create(path) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        // Whoever may write beside it may have put a link there.
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let dir = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        share(&dir, &dir.metadata()?, group, 0o2770)
    }

    /// Opens a lock file of ours to the group, whatever the umask was.
    pub(crate) fn share_file(self, file: &File, seen: &Metadata) -> io::Result<()> {
        match self {
            Access::Owner => Ok(()),
            Access::Group(group) => share(file, seen, group, self.file_mode()),
        }
    }
}

/// Gives what is ours to a group, with these permissions; what is not ours stays as it is.
fn share(file: &File, seen: &Metadata, group: u32, mode: u32) -> io::Result<()> {
    let is_shared = seen.mode() & 0o7777 == mode && seen.gid() == group;
    if is_shared || seen.uid() != geteuid().as_raw() {
        return Ok(());
    }
    fchown(file, None, Some(Gid::from_raw(group)))?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// Makes a directory, and its parents: 0755, so that only its owner can plant files.
///
/// # Errors
/// If it cannot be made.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Whether two files are one.
pub(crate) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
