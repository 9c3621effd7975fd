//! What our ancestors hold: they say so in the environment, and the kernel is asked whether it is
//! true.
//!
//! A descriptor that was inherited is believed if it is of the very lock file, and has it locked:
//! then this process holds the lock, whatever else the environment says. Beside them stand the
//! processes that wait for us while they hold locks of their own; they can only have us refused.

use std::fmt::Write;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use dms_flock::{Mode, kernel};

use crate::descriptor::Descriptor;
use crate::dir::LockDir;

/// The environment variable: words, `fd=N` and `pid=N`.
pub(crate) const VARIABLE: &str = "DMS_HELD_LOCKS";

/// What our ancestors hold.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held {
    /// Descriptors that we have inherited, each with a lock.
    descriptors: Vec<RawFd>,
    /// Processes that wait for what they have started.
    waiting: Vec<i32>,
}

/// How a lock stands to what our ancestors hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// To be taken at this level: 0 if none of them has it, else one more than the deepest that has.
    /// Those who are started side by side below one holder meet there.
    Level(u32),
    /// They hold it shared, and it is wanted exclusive: whoever waited for that would wait for
    /// itself.
    Shared,
    /// This process holds it, and waits for us.
    Waiting(i32),
}

impl Held {
    /// What the variable says, as far as it is true.
    pub(crate) fn parse(words: &str) -> Held {
        let mut held = Held::default();
        for word in words.split(' ') {
            match word.split_once('=').map(|(kind, number)| (kind, number.parse())) {
                Some(("fd", Ok(number))) if is_locked(number) => held.descriptors.push(number),
                Some(("pid", Ok(number))) => held.waiting.push(number),
                _ => {}
            }
        }
        held
    }

    /// The same, with these descriptors, for what inherits them.
    pub(crate) fn with_descriptors(mut self, more: impl IntoIterator<Item = RawFd>) -> Held {
        self.descriptors.extend(more);
        self
    }

    /// The same, with this process, for what it waits for.
    pub(crate) fn with_waiting(mut self, process: u32) -> Held {
        self.waiting.extend(i32::try_from(process));
        self
    }

    /// As it stands in the variable.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        for number in &self.descriptors {
            // A string takes all.
            let _ = write!(words, "fd={number} ");
        }
        for number in &self.waiting {
            let _ = write!(words, "pid={number} ");
        }
        words.truncate(words.trim_end().len());
        words
    }

    /// How the lock with this file name stands, if it is wanted so.
    pub(crate) fn standing(&self, dir: &LockDir, file_name: &str, wanted: Mode) -> Standing {
        let mut level = 0;
        let mut deepest = None;
        while let Some(mode) = self.mode_at(dir, file_name, level) {
            deepest = Some(mode);
            level += 1;
        }
        if deepest == Some(Mode::Shared) && wanted == Mode::Exclusive {
            return Standing::Shared;
        }
        if !self.waiting.is_empty() {
            let takers = kernel::takers(&dir.lock(file_name, level));
            if let Some(&process) = self.waiting.iter().find(|process| takers.contains(process)) {
                return Standing::Waiting(process);
            }
        }
        Standing::Level(level)
    }

    /// How we hold it by a descriptor that we have inherited, if we do.
    fn mode_at(&self, dir: &LockDir, file_name: &str, level: u32) -> Option<Mode> {
        if self.descriptors.is_empty() {
            return None;
        }
        let there = fs::symlink_metadata(dir.lock(file_name, level)).ok()?;
        self.descriptors.iter().find_map(|number| {
            // A file that we have locked is on this host: it can be looked at.
            let ours = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
            let is_it = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
            Descriptor::of("self", &number.to_string()).filter(|_| is_it)?.lock
        })
    }
}

fn is_locked(number: RawFd) -> bool {
    Descriptor::of("self", &number.to_string()).is_some_and(|found| found.lock.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_so_is_not_believed() {
        // Of these, at most the first two are open in a test, and nothing is locked.
        let held = Held::parse("fd=0 fd=1 fd=100 fd=-1 fd=x fd= pid=7 pid= what =");
        assert_eq!(held.words(), "pid=7");
        assert_eq!(Held::parse("").words(), "");
        assert_eq!(
            Held::parse("pid=7").with_descriptors([100, 101]).words(),
            "fd=100 fd=101 pid=7"
        );
    }
}
