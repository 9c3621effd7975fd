//! Who this host is, and which run of it this is.

use std::fs;
use std::io;

/// The node's name as `uname -n` prints it.
pub fn node_name() -> String {
    nix::sys::utsname::uname()
        .map(|uts| uts.nodename().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The kernel's name for this boot: different after every reboot.
///
/// # Errors
/// If /proc is not there.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// A new random id (a version 4 UUID, from the kernel).
///
/// # Errors
/// If /proc is not there.
pub fn random_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(id.trim().to_owned())
}
