//! Who this host is, and which run of it this is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

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
    // Nobody lives to see another one.
    static THIS: OnceLock<String> = OnceLock::new();
    if let Some(id) = THIS.get() {
        return Ok(id.clone());
    }
    let id = read_proc(Path::new("/proc/sys/kernel/random/boot_id"))?;
    Ok(THIS.get_or_init(|| id.trim().to_owned()).clone())
}

/// A new random id (a version 4 UUID, from the kernel).
///
/// # Errors
/// If /proc is not there.
pub fn random_id() -> io::Result<String> {
    let id = read_proc(Path::new("/proc/sys/kernel/random/uuid"))?;
    Ok(id.trim().to_owned())
}

/// A short file of /proc, which says of itself that it is empty: std asks for its size, and then reads it
/// in small pieces.
///
/// # Errors
/// Those of the system calls; one that is not UTF-8 is [`io::ErrorKind::InvalidData`].
pub fn read_proc(path: &Path) -> io::Result<String> {
    let mut text = Vec::with_capacity(1024);
    File::open(path)?.take(u64::MAX).read_to_end(&mut text)?;
    String::from_utf8(text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}
