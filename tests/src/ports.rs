//! Ports and directories for the services that tests have of their own.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

// All are below the ports that the kernel gives to connections, so that a service that is stopped
// finds its own free when it starts again.
/// The ports of brokers.
pub(crate) const BROKERS: Range<u16> = 21_000..31_000;
/// The ports of Keystone and Barbican.
pub(crate) const OPENSTACK: Range<u16> = 13_000..17_000;
/// The ports of databases.
pub(crate) const DATABASES: Range<u16> = 17_000..21_000;
/// The ports of databases that are one.
pub(crate) const CLUSTERS: Range<u16> = 31_000..32_000;

/// A directory whose name says which `count` ports, from that one on, are its service's: who makes
/// it has them.
pub(crate) fn claim(kind: &str, range: Range<u16>, count: u16) -> (PathBuf, u16) {
    // Not the first that is free: a client that outlived another test would find it.
    let slots = (range.end - range.start) / count;
    let slot = u16::try_from(std::process::id() % u32::from(slots)).expect("it is small");
    let first = range.start + slot * count;
    for port in (first..range.end).chain(range.start..first).step_by(usize::from(count)) {
        let root = std::env::temp_dir().join(format!("dms-{kind}-{port}"));
        match fs::create_dir(&root) {
            Err(why) if why.kind() == ErrorKind::AlreadyExists => continue,
            other => other.expect("a temporary directory"),
        }
        if (port..port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            fs::set_permissions(&root, Permissions::from_mode(0o700)).expect("it is ours");
            return (root, port);
        }
        fs::remove_dir(&root).expect("it is ours, and empty");
    }
    panic!("no free ports");
}
