//! Locks by flock(2) as the kernel lists them: /proc/locks.
//!
//! It names the process that took a lock. That one may have ended and left it to its children.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Mode;

/// A lock by flock(2), held or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// Whether it is waited for.
    pub waits: bool,
    /// How.
    pub mode: Mode,
    /// The process that took it, or waits.
    pub pid: i32,
    file: (Device, u64),
}

impl Known {
    /// Whether it is on the file with this number, on this device.
    pub fn is_on(&self, device: Device, inode: u64) -> bool {
        self.file == (device, inode)
    }

    /// The number of its file.
    pub fn inode(&self) -> u64 {
        self.file.1
    }

    /// From a line like `1: -> FLOCK  ADVISORY  WRITE 708 08:02:12345 0 EOF`.
    fn parse(line: &str) -> Option<Known> {
        let mut words = line.split_whitespace().skip(1).peekable();
        let waits = words.next_if_eq(&"->").is_some();
        if words.next() != Some("FLOCK") {
            return None;
        }
        let mode = self::mode(words.nth(1)?);
        let pid = words.next()?.parse().ok()?;
        let mut file = words.next()?.split(':');
        let mut hex = || u64::from_str_radix(file.next()?, 16).ok();
        let (major, minor) = (hex()?, hex()?);
        Some(Known { waits, mode, pid, file: ((major, minor), file.next()?.parse().ok()?) })
    }
}

/// Major and minor number.
pub type Device = (u64, u64);

/// The device of what is in this directory, as the kernel has it in its lists: on some file systems
/// (overlay, btrfs) stat(2) says another.
pub fn device_in(dir: &Path) -> Option<Device> {
    let open = File::open(dir).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd())).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// So many bytes of its list, less a line, the kernel tells at once, if it is asked for as many. Of a
/// longer one, for each lock that is given up meanwhile it may leave another out.
const PIECE: usize = 4096;

/// So many looks together leave none out.
const LOOKS: usize = 16;

/// All locks by flock(2) of this host.
pub fn known() -> Vec<Known> {
    let mut seen = HashSet::new();
    let mut known = Vec::new();
    for _ in 0..LOOKS {
        let mut text = String::with_capacity(PIECE);
        // Std would ask for a line first, to see whether there is any.
        let file = File::open("/proc/locks").map(|file| file.take(u64::MAX));
        let _ = file.and_then(|mut file| file.read_to_string(&mut text));
        known.extend(text.lines().filter_map(Known::parse).filter(|lock| seen.insert(*lock)));
        if text.len() < PIECE - 100 {
            break;
        }
    }
    known
}

/// The processes that took the lock on this file and have it, or whose children have it.
pub fn takers(path: &Path) -> Vec<i32> {
    let device = path.parent().and_then(device_in);
    let (Ok(file), Some(device)) = (fs::symlink_metadata(path), device) else { return Vec::new() };
    let held = known().into_iter().filter(|lock| !lock.waits && lock.is_on(device, file.ino()));
    held.map(|lock| lock.pid).collect()
}

/// The word that the kernel has for it.
pub fn mode(word: &str) -> Mode {
    if word == "WRITE" { Mode::Exclusive } else { Mode::Shared }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_while_others_come_and_go() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: String| File::create(dir.path().join(name)).expect("a fresh name");
        let held: Vec<File> = (0..200).map(|number| file(format!("held-{number}"))).collect();
        held.iter().for_each(|file| file.lock().expect("nobody else has it"));
        let is_over = AtomicBool::new(false);
        let device = device_in(dir.path()).expect("it is mounted");
        let missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                let others: Vec<File> = (0..20).map(|number| file(format!("{number}"))).collect();
                while !is_over.load(Ordering::Relaxed) {
                    others.iter().for_each(|file| file.lock().expect("nobody else has it"));
                    others.iter().for_each(|file| file.unlock().expect("it is locked"));
                }
            });
            let mut inodes = held.iter().map(|file| file.metadata().expect("it is open").ino());
            let wanted: Vec<u64> = inodes.by_ref().collect();
            let misses = |_: &u32| {
                let known = known();
                let is_there = |inode| known.iter().any(|lock| lock.is_on(device, inode));
                !wanted.iter().all(|inode| is_there(*inode))
            };
            let missed = (0..50).filter(misses).count();
            is_over.store(true, Ordering::Relaxed);
            missed
        });
        assert_eq!(missed, 0);
    }

    #[test]
    fn the_kernels_list_is_read() {
        let line = "12: -> FLOCK  ADVISORY  READ 708 fe:0a:12345 0 EOF";
        let want = Known { waits: true, mode: Mode::Shared, pid: 708, file: ((0xfe, 0x0a), 12345) };
        assert_eq!(Known::parse(line), Some(want));
        let nested = "12:   -> FLOCK  ADVISORY  WRITE 9 00:01:5 0 EOF";
        assert!(Known::parse(nested).is_some_and(|lock| lock.waits && lock.pid == 9));
        assert!(
            Known::parse("1: FLOCK  ADVISORY  WRITE 9 00:01:5 0 EOF").is_some_and(|l| !l.waits)
        );
        assert_eq!(Known::parse("1: POSIX  ADVISORY  WRITE 9 00:01:5 0 EOF"), None);
        assert_eq!(Known::parse("1: OFDLCK ADVISORY  WRITE -1 00:01:5 0 EOF"), None);
    }
}
