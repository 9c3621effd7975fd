//! Who holds a lock.

use std::fs;
use std::path::Path;

use dms_flock::kernel;
use nix::unistd::{Pid, getpgid};

/// The process that holds this lock, in words, unless it is of this group.
pub(crate) fn of_others(lock: &Path, group: u32) -> Option<String> {
    let is_ours = |pid: i32| {
        getpgid(Some(Pid::from_raw(pid))).is_ok_and(|of| u32::try_from(of.as_raw()) == Ok(group))
    };
    let pid = kernel::takers(lock).into_iter().find(|&pid| !is_ours(pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}
