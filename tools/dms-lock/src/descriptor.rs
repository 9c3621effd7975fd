//! What /proc says of an open file: which it is, whether it is locked, and since when.

use std::fs;

use dms_flock::{Mode, kernel};

/// An open file of some process.
#[derive(Debug, PartialEq)]
pub(crate) struct Descriptor {
    /// The number of its file. Not to be had from the file itself: that may be on a dead server.
    pub(crate) inode: u64,
    /// By flock(2), and by this open file, not by another one of the same file.
    pub(crate) lock: Option<Mode>,
    /// Where it stands: since when it holds the lock or waits for it, if it is of ours.
    pub(crate) moment: u64,
}

impl Descriptor {
    /// The one with this number, of this process (or `self`). `None`: there is none, or it is not for
    /// us to see.
    pub(crate) fn of(process: &str, number: &str) -> Option<Descriptor> {
        parse(&fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()?)
    }
}

fn parse(text: &str) -> Option<Descriptor> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // lock:   1: FLOCK  ADVISORY  WRITE 708 08:02:12345 0 EOF
    let lock: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("lock:"))
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .find(|words| words.first() == Some(&"FLOCK"))
        .unwrap_or_default();
    // Kernels before 5.14 say the file's number with the lock only.
    let inode = value("ino:").or_else(|| lock.get(4)?.rsplit(':').next());
    Some(Descriptor {
        inode: inode?.parse().ok()?,
        lock: lock.get(2).map(|word| kernel::mode(word)),
        moment: value("pos:")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lock_by_flock_counts() {
        let text = |lock: &str| format!("pos:\t77\nflags:\t0100\nmnt_id:\t24\nino:\t9\n{lock}");
        let lock = |text: &str| parse(text).map(|found| (found.inode, found.lock, found.moment));
        let held = "lock:\t1: FLOCK  ADVISORY  WRITE 708 08:02:9 0 EOF\n";
        assert_eq!(lock(&text(held)), Some((9, Some(Mode::Exclusive), 77)));
        let shared = held.replace("WRITE", "READ");
        assert_eq!(lock(&text(&shared)), Some((9, Some(Mode::Shared), 77)));
        let other = held.replace("FLOCK", "POSIX");
        assert_eq!(lock(&text(&other)), Some((9, None, 77)));
        assert_eq!(lock(&text("")), Some((9, None, 77)));
        let old = text(held).replace("ino:\t9\n", "");
        assert_eq!(lock(&old), Some((9, Some(Mode::Exclusive), 77)));
        assert_eq!(lock("pos:\t77\n"), None);
    }
}
