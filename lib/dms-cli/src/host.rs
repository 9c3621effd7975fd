//! Who this host is, and which run of it this is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

use rustix::rand::{GetRandomFlags, getrandom};

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

/// A new random id (a version 4 UUID).
///
/// # Errors
/// That of getrandom(2).
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(uuid(u128::from_be_bytes(bytes)))
}

/// The UUID of these bits, except for those that say which version it is of.
fn uuid(bits: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = bits & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_that_it_is_random_and_is_another_each_time() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let [one, other] = [random_id(), random_id()].map(|id| id.expect("the kernel has one"));
        assert_ne!(one, other);
    }
}
