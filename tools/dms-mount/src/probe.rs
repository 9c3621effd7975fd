//! Is a mount alive? Only I/O on it can tell, and I/O on a mount can hang for ever: so another
//! process does it (this program, as `dms-mount probe`), and is killed if it takes too long.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use nix::errno::Errno;
use nix::sys::stat::{lstat, major, minor};
use nix::sys::statvfs::statvfs;

use crate::child::{self, Outcome};
use crate::mountinfo::Mount;
use crate::nfs;

/// What the I/O said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Somebody answered; "permission denied" and a FUSE program's "input/output error" are
    /// answers too.
    Alive,
    /// Nobody is there any more to answer, or what was mounted is not there any more.
    Gone,
    /// Something else is at the path: the mount is hidden by another, above it.
    Covered,
    /// No answer in time, ours or that which a soft NFS mount waits for.
    Hung,
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Ask the daemon.
    Daemon,
    /// Look a name up that is not there: the daemon has to ask its server.
    Server,
}

/// Tries it, from a process of its own.
pub(crate) fn health(mount: &Mount, depth: Depth, bound: Duration) -> io::Result<Health> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["probe", "--device", &mount.device]).env_clear();
    // The kernel, which is the client there, may still know what its server has removed.
    let is_nfs = nfs::is_nfs(mount);
    if depth == Depth::Server || is_nfs {
        command.arg("--server");
    }
    command.arg("--").arg(&mount.path);
    match child::run(&mut command, bound, None)? {
        Outcome::Killed | Outcome::Outlives => Ok(Health::Hung),
        Outcome::Ended(ended) => match ended.stdout.trim() {
            "stale" if is_nfs => Ok(Health::Gone),
            "silent" if is_nfs => Ok(Health::Hung),
            "alive" | "stale" | "silent" => Ok(Health::Alive),
            "gone" => Ok(Health::Gone),
            "covered" => Ok(Health::Covered),
            _ => Err(io::Error::other(format!("the probe failed: {}", ended.stderr))),
        },
    }
}

/// The probe's own main: says `alive`, `gone` or `covered`; `stale` and `silent` are for whoever
/// knows the file system.
pub(crate) fn main(
    path: &Path,
    device: &str,
    server: bool,
    mut output: impl Write,
) -> Result<Exit, Failure> {
    let depth = if server { Depth::Server } else { Depth::Daemon };
    let word = match attempt(path, device, depth) {
        Err(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ESHUTDOWN) => "gone",
        Err(Errno::ESTALE) => "stale",
        Err(
            Errno::EIO
            | Errno::ETIMEDOUT
            | Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH,
        ) => "silent",
        Err(Errno::ENOENT | Errno::ENOTDIR) | Ok(false) => "covered",
        Ok(true) | Err(_) => "alive",
    };
    writeln!(output, "{word}").context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

/// False: the path leads to another device.
fn attempt(path: &Path, device: &str, depth: Depth) -> Result<bool, Errno> {
    // Only the daemon can answer this one.
    statvfs(path)?;
    let dev = lstat(path)?.st_dev;
    if format!("{}:{}", major(dev), minor(dev)) != device {
        return Ok(false);
    }
    if depth == Depth::Server {
        // A name that nobody has, so that no cache can answer.
        let name: PathBuf = path.join(format!(".dms-probe-{}", std::process::id()));
        match lstat(&name) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(why) => return Err(why),
        }
        // An NFS server may answer for a directory that was removed as long as it remembers it.
        if lstat(path)?.st_nlink == 0 {
            return Err(Errno::ESTALE);
        }
    }
    Ok(true)
}
