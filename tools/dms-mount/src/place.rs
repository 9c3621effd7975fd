//! Where a target may be mounted: below a mount base, with no symbolic link on the way.
//!
//! Nothing here looks into a mount point that may be a dead server's: a path that is mounted is
//! known from mountinfo, and only its parents are opened.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dms_wire::{Invalid, MountPath};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::mountinfo::Mounts;
use crate::seal;

/// How long the lock on a mount point may be held by a process that was killed, or was being started
/// by one: its files are closed in the order of their numbers, that of the act lock before this one.
const DYING: Duration = Duration::from_secs(1);

/// How often to look whether that is over.
const GLANCE: Duration = Duration::from_millis(2);

/// A path below a mount base.
#[derive(Debug)]
pub(crate) struct Place {
    base: PathBuf,
    /// From the base to the mount point: at least one.
    parts: Vec<OsString>,
    path: PathBuf,
}

/// Why a place cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The request asks for what is not allowed.
    Invalid(Invalid),
    /// The system said no.
    Failed(String),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Invalid(why) => why.fmt(f),
            Unfit::Failed(text) => f.write_str(text),
        }
    }
}

impl Place {
    /// Finds the base that `path` is below.
    pub(crate) fn find(bases: &[PathBuf], path: &MountPath) -> Result<Self, Invalid> {
        let wanted = Path::new(path.as_str());
        for base in bases {
            // As the kernel spells it: a base may be reached through a link of the admin's.
            let real = fs::canonicalize(base).unwrap_or_else(|_| base.components().collect());
            for prefix in [base.as_path(), &real] {
                let Ok(rest) = wanted.strip_prefix(prefix) else { continue };
                let parts: Vec<OsString> = rest.iter().map(OsStr::to_owned).collect();
                let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
                if plain && !parts.is_empty() {
                    return Ok(Place { path: real.join(rest), base: real.clone(), parts });
                }
            }
        }
        let bases: Vec<String> = bases.iter().map(|base| base.display().to_string()).collect();
        Err(Invalid(format!("mount path {path} is not below {}", bases.join(" or "))))
    }

    /// The path, as mountinfo has it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks what is there of the way, and that it does not lead through another mount.
    pub(crate) fn check(&self, mounts: &Mounts) -> Result<(), Unfit> {
        for mount in mounts.below(&self.base) {
            let inside = self.path.starts_with(&mount.path) && self.path != mount.path;
            if inside && mount.path != self.base {
                return Err(Unfit::Invalid(Invalid(format!(
                    "mount path {} leads through the mount at {}",
                    self.path.display(),
                    mount.path.display()
                ))));
            }
        }
        let is_mounted = mounts.at(&self.path).is_some();
        let known = if is_mounted { self.parts.len() - 1 } else { self.parts.len() };
        self.walk(known, false).map(|_| ())
    }

    /// Whether there is a mount point.
    pub(crate) fn is_there(&self) -> Result<bool, Unfit> {
        Ok(self.walk(self.parts.len(), false)?.is_some())
    }

    /// Makes the mount point and what is missing on the way, 0755.
    pub(crate) fn make(&self) -> Result<(), Unfit> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.base);
        made.map_err(|why| failed("make", &self.base, &why.to_string()))?;
        let (name, parent) = self.parent(true)?;
        match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => self.walk(self.parts.len(), false).map(|_| ()),
            Err(why) => Err(failed("make", &self.path, why.desc())),
        }
    }

    /// Keeps everybody else, who may know the mount point by another name, from mounting on it.
    /// `None`: somebody does, and goes on. The lock is on the directory that the mount will hide.
    pub(crate) fn lock(&self) -> Result<Option<File>, Unfit> {
        let end = Instant::now() + DYING;
        loop {
            let directory = self.open().map_err(|why| failed("open", &self.path, why.desc()))?;
            match directory.try_lock() {
                Ok(()) if is_removed(&directory) => {}
                Ok(()) => return Ok(Some(directory)),
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(GLANCE),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(why)) => {
                    return Err(failed("lock", &self.path, &why.to_string()));
                }
            }
        }
    }

    /// Keeps everybody, root too, from writing into the mount point for as long as nothing is
    /// mounted on it, whatever becomes of the mount: a daemon that ends takes its mount along, and
    /// its jobs would write on. Where the file system does not know how, it stays as it is.
    /// `directory` is the one that [`Place::lock`] has opened.
    pub(crate) fn seal(&self, directory: &File) {
        if let Err(why) = seal::set(directory, true) {
            log::debug!("unable to make {} immutable: {why}", self.path.display());
        }
    }

    /// Takes that back. `directory` is the one that [`Place::lock`] has opened, with nothing mounted
    /// on it: else it is the mount's own.
    pub(crate) fn unseal(&self, directory: &File) -> Result<(), Unfit> {
        match seal::set(directory, false) {
            Err(why) if !seal::is_unknown(&why) => {
                Err(failed("make writable", &self.path, &why.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn open(&self) -> Result<File, Errno> {
        let Ok((name, parent)) = self.parent(false) else { return Err(Errno::ENOENT) };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&parent, name.as_os_str(), flags, Mode::empty()).map(File::from)
    }

    /// Whether nothing is in the mount point: mounting over files would hide them.
    pub(crate) fn is_empty(&self) -> Result<bool, Unfit> {
        let mut entries =
            fs::read_dir(&self.path).map_err(|why| failed("read", &self.path, &why.to_string()))?;
        Ok(entries.next().is_none())
    }

    /// Removes the mount point; never what is in it.
    pub(crate) fn remove(&self) -> Result<(), Unfit> {
        let (name, parent) = self.parent(false)?;
        match unlinkat(&parent, name.as_os_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(why) => Err(failed("remove", &self.path, why.desc())),
        }
    }

    fn parent(&self, make: bool) -> Result<(OsString, OwnedFd), Unfit> {
        // `find` lets no place through that has no parts.
        let name = self.parts.last().cloned().unwrap_or_default();
        match self.walk(self.parts.len() - 1, make)? {
            Some(parent) => Ok((name, parent)),
            None => Err(failed("open", &self.path, "its directory is not there")),
        }
    }

    /// Opens the first `count` parts one by one, following no link. `None`: one is not there.
    fn walk(&self, count: usize, make: bool) -> Result<Option<OwnedFd>, Unfit> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut at = self.base.clone();
        let mut directory = match open(&self.base, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(why) => return Err(failed("open", &at, why.desc())),
        };
        for part in self.parts.iter().take(count) {
            at.push(part);
            if make {
                match mkdirat(&directory, part.as_os_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(why) => return Err(failed("make", &at, why.desc())),
                }
            }
            let flags = flags | OFlag::O_NOFOLLOW;
            directory = match openat(&directory, part.as_os_str(), flags, Mode::empty()) {
                Ok(directory) => directory,
                Err(Errno::ENOENT) => return Ok(None),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let text = format!("{} on the mount path is no directory", at.display());
                    return Err(Unfit::Invalid(Invalid(text)));
                }
                Err(why) => return Err(failed("open", &at, why.desc())),
            };
        }
        Ok(Some(directory))
    }
}

/// By whoever had the lock before.
fn is_removed(directory: &File) -> bool {
    directory.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

fn failed(verb: &str, path: &Path, why: &str) -> Unfit {
    Unfit::Failed(format!("unable to {verb} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(base: &Path, below: &str) -> Result<Place, Invalid> {
        let path = MountPath::try_from(format!("{}/{below}", base.display()))?;
        Place::find(&[base.to_owned()], &path)
    }

    #[test]
    fn a_path_beside_the_base_is_refused() {
        for bad in ["/etc", "/srv/mounts", "/srv/mountsx/t", "/"] {
            let path = MountPath::try_from(bad.to_owned());
            let found = path.and_then(|path| Place::find(&["/srv/mounts".into()], &path));
            assert!(found.is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_base_that_is_not_there_yet_is_spelled_as_the_kernel_will() {
        let path = MountPath::try_from("/nonexistent/base/t".to_owned()).expect("a path");
        let place = Place::find(&["/nonexistent//./base/".into()], &path).expect("it is below");
        assert_eq!(place.path().as_os_str(), "/nonexistent/base/t");
    }

    #[test]
    fn a_mount_point_is_made_and_removed_but_not_what_is_in_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = fs::canonicalize(dir.path()).expect("it is there");
        let place = place(&base, "a/b").expect("below the base");
        assert!(!place.is_there().expect("its base can be read"));
        place.make().expect("nothing is in the way");
        place.make().expect("it is there");
        assert!(place.is_there().expect("it was made"));
        assert!(place.is_empty().expect("it can be read"));
        fs::write(place.path().join("backup"), "data").expect("it can be written");
        assert!(!place.is_empty().expect("it can be read"));
        assert!(place.remove().is_err());
        assert!(place.path().join("backup").exists());
    }

    #[test]
    fn a_link_on_the_way_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = fs::canonicalize(dir.path()).expect("it is there");
        std::os::unix::fs::symlink("/etc", base.join("out")).expect("a fresh name");
        let mounts = Mounts::read().expect("/proc is there");
        for below in ["out", "out/x"] {
            let place = place(&base, below).expect("below the base by name");
            assert!(matches!(place.check(&mounts), Err(Unfit::Invalid(_))), "{below}");
            assert!(matches!(place.make(), Err(Unfit::Invalid(_))), "{below}");
        }
        assert!(!Path::new("/etc/x").exists());
    }
}
