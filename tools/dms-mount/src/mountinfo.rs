//! The kernel's own list of mounts: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The list is rarely longer.
const LENGTH: usize = 32 << 10;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    /// `major:minor`.
    pub(crate) device: String,
    pub(crate) path: PathBuf,
    pub(crate) fstype: String,
    pub(crate) source: String,
}

/// All mounts of our mount namespace, in the order in which they were mounted over each other.
pub(crate) struct Mounts(Vec<Mount>);

/// The list as it was read, and what tells whether it is so still.
struct Seen {
    since: Watch,
    mounts: Arc<Mounts>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

impl Mounts {
    /// Reads them, unless the kernel says that they are as they were when they were read last. (It does
    /// not say so of a directory above one that was renamed: whoever looks at the mount finds out.)
    pub(crate) fn read() -> io::Result<Arc<Mounts>> {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Seen { since, mounts }) = &*seen
            && !since.has_changed(PollTimeout::ZERO)?
        {
            return Ok(Arc::clone(mounts));
        }
        // It begins before the list is read: what changes meanwhile is seen the next time.
        let since = Watch::start()?;
        let mut text = Vec::with_capacity(LENGTH);
        // A file is asked first for a little; what is taken from one is not.
        (&since.0).take(u64::MAX).read_to_end(&mut text)?;
        let mounts = Arc::new(Mounts::parse(&text));
        *seen = Some(Seen { since, mounts: Arc::clone(&mounts) });
        Ok(mounts)
    }

    fn parse(text: &[u8]) -> Self {
        Mounts(text.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// What is mounted at `path`: the topmost, which is the one that a job would write to.
    pub(crate) fn at(&self, path: &Path) -> Option<&Mount> {
        // By their bytes, of which the kernel's has none too many; the list may be long.
        self.0.iter().rev().find(|mount| mount.path.as_os_str() == path.as_os_str())
    }

    /// Whether what is mounted there is mounted somewhere else, too: NFS has one file system for all
    /// exports that are one at the server.
    pub(crate) fn is_shared(&self, mount: &Mount) -> bool {
        self.0.iter().any(|other| other.id != mount.id && other.device == mount.device)
    }

    /// Those at or below `base`.
    pub(crate) fn below<'a>(&'a self, base: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.0.iter().filter(move |mount| mount.path.starts_with(base))
    }
}

impl Mount {
    /// Whether it is of this type, or of a subtype: `fuse.s3fs` is also a `fuse`.
    pub(crate) fn is_of_type(&self, fstype: &str) -> bool {
        let rest = self.fstype.strip_prefix(fstype);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// `36 35 98:0 /root /mount/point opts tag:1 - type source superopts`
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = String::from_utf8_lossy(fields.next()?).parse().ok()?;
        let device = text(fields.nth(1)?);
        let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
        let mut behind_dash = fields.skip_while(|field| *field != b"-").skip(1);
        Some(Mount {
            id,
            device,
            path,
            fstype: text(behind_dash.next()?),
            source: text(behind_dash.next()?),
        })
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// `\040` and friends: space, tab, newline and backslash are written in octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                plain.push(value);
                rest = &behind[3..];
            }
            _ => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

/// Whether something is mounted at `path`; `None` if the kernel tells by its list only. What is mounted
/// there is not asked. Where much is mounted at once, this costs less than the list each time.
pub(crate) fn is_mount_point(path: &Path) -> Option<bool> {
    Some(root_at(path)?.is_some())
}

/// Whether this mount is what is at its path, still; the list is read only where the kernel tells by
/// nothing else.
pub(crate) fn is_there(mount: &Mount) -> io::Result<bool> {
    match root_at(&mount.path) {
        Some(root) => {
            Ok(root.is_some_and(|root| (root.mount, &*root.device) == (mount.id, &*mount.device)))
        }
        None => Ok(Mounts::read()?.at(&mount.path) == Some(mount)),
    }
}

/// The root of a mount.
struct Root {
    mount: u64,
    device: String,
}

/// What is mounted at the path, if something is; `None` if the kernel does not tell.
fn root_at(path: &Path) -> Option<Option<Root>> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    let is_known = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let device = || format!("{}:{}", found.stx_dev_major, found.stx_dev_minor);
    is_known.then(|| is_root.then(|| Root { mount: found.stx_mnt_id, device: device() }))
}

/// Wakes up when the list changes.
pub(crate) struct Watch(File);

impl Watch {
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Watch(File::open(MOUNTINFO)?))
    }

    /// Waits until something was mounted or unmounted since the last call, or for `time`.
    pub(crate) fn wait(&self, time: Duration) -> io::Result<()> {
        let millis = time.as_millis().clamp(1, 60_000);
        self.has_changed(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)).map(|_| ())
    }

    fn has_changed(&self, patience: PollTimeout) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, patience) {
            Ok(count) => Ok(count > 0),
            // As good as a change: who waits looks again, and so does who reads.
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(why) => Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_its_escapes_are_decoded() {
        let text = b"22 1 0:20 / /proc rw - proc proc rw\n\
            36 35 0:44 / /m/a\\040b\\134c\\011d rw,nosuid shared:1 master:2 - fuse.s3fs dms:t/b rw\n";
        let mounts = Mounts::parse(text);
        let mount = mounts.at(Path::new("/m/a b\\c\td")).expect("it is there");
        assert_eq!((mount.id, mount.device.as_str()), (36, "0:44"));
        assert_eq!((mount.fstype.as_str(), mount.source.as_str()), ("fuse.s3fs", "dms:t/b"));
        assert_eq!(mounts.below(Path::new("/m")).count(), 1);
        assert_eq!(mounts.below(Path::new("/pro")).count(), 0);
    }

    #[test]
    fn what_is_mounted_is_told_from_what_is_not() {
        for (path, is_it) in [("/proc", true), ("/proc/self", false), ("/", true)] {
            // None: a kernel before 5.8.
            assert_ne!(is_mount_point(Path::new(path)), Some(!is_it), "{path}");
        }
        assert_eq!(is_mount_point(Path::new("/nothing/there")), None);
    }

    #[test]
    fn a_mount_is_there_by_its_number_and_its_device() {
        let mounts = Mounts::read().expect("it is there");
        let proc = mounts.at(Path::new("/proc")).expect("it is mounted").clone();
        assert!(is_there(&proc).expect("it can be asked"));
        for other in [
            Mount { id: proc.id + 1, ..proc.clone() },
            Mount { device: "0:0".into(), ..proc.clone() },
            Mount { path: "/proc/self".into(), ..proc.clone() },
            Mount { path: "/nothing/there".into(), ..proc },
        ] {
            assert!(!is_there(&other).expect("it can be asked"), "{other:?}");
        }
    }

    #[test]
    fn of_two_at_one_path_the_upper_counts() {
        let text = b"1 0 0:1 / /m rw - ext4 /dev/a rw\n2 1 0:2 / /m rw - tmpfs t rw\n";
        assert_eq!(Mounts::parse(text).at(Path::new("/m")).map(|mount| mount.id), Some(2));
    }

    #[test]
    fn a_cut_line_is_left_out() {
        assert_eq!(Mounts::parse(b"1 0 0:1 / /m rw\n\nx\n1 0 0:1 / /m rw - t\n").0, []);
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"a\\999b"), b"a\\999b");
    }
}
