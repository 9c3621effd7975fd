//! Is a mount alive? Only I/O on it can tell, and I/O on a mount can hang for ever: so another
//! process does it (`look`), and is killed if it takes too long.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{lstat, major, minor};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use crate::look;
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

impl Health {
    /// A word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Health::Alive => "alive",
            Health::Gone => "gone",
            Health::Covered => "covered",
            Health::Hung => "hung",
        }
    }
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Depth {
    /// Ask the daemon.
    Daemon,
    /// Look a name up that is not there: the daemon has to ask its server.
    Server,
}

/// A server that exports anew, or hands over to another, may not know an export for a moment.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Tries it, from a process of its own.
pub(crate) fn health(mount: &Mount, depth: Depth, bound: Duration) -> io::Result<Health> {
    Trial::begin(mount, depth)?.end(bound)
}

/// A mount that is being tried.
pub(crate) struct Trial {
    mount: Mount,
    depth: Depth,
    asked: look::Asked,
}

impl Trial {
    /// Begins it, and does not wait.
    pub(crate) fn begin(mount: &Mount, depth: Depth) -> io::Result<Trial> {
        // The kernel, which is the client there, may still know what its server has removed.
        let depth = if nfs::is_nfs(mount) { Depth::Server } else { depth };
        let (path, device) = (mount.path.clone(), mount.device.clone());
        let asked = look::Asked::about(&look::Question::Mount(Question { path, device, depth }))?;
        Ok(Trial { mount: mount.clone(), depth, asked })
    }

    /// Whether it is one of this mount, and goes as deep.
    pub(crate) fn is_of(&self, mount: &Mount, depth: Depth) -> bool {
        self.mount == *mount && (self.depth == depth || self.depth == Depth::Server)
    }

    /// What came of it.
    pub(crate) fn end(self, bound: Duration) -> io::Result<Health> {
        let end = Instant::now() + bound;
        let left = || end.saturating_duration_since(Instant::now());
        let is_nfs = nfs::is_nfs(&self.mount);
        let first = read(self.asked.answer(bound)?, is_nfs)?;
        if first != Health::Gone || !is_nfs {
            return Ok(first);
        }
        // What is gone is unmounted, under whoever has files open there: one word is not enough.
        thread::sleep(SECOND_LOOK.min(left() / 2));
        let again = Trial::begin(&self.mount, self.depth)?;
        read(again.asked.answer(left())?, is_nfs)
    }
}

/// What the answer says of the mount's health. `None`: there was none in time.
fn read(answer: Option<Vec<String>>, is_nfs: bool) -> io::Result<Health> {
    let Some(words) = answer else { return Ok(Health::Hung) };
    match words.first().map(String::as_str) {
        Some("stale") if is_nfs => Ok(Health::Gone),
        Some("silent") if is_nfs => Ok(Health::Hung),
        Some("alive" | "stale" | "silent") => Ok(Health::Alive),
        Some("gone") => Ok(Health::Gone),
        Some("covered") => Ok(Health::Covered),
        _ => Err(io::Error::other(format!("not an answer about a mount: {words:?}"))),
    }
}

/// What the process that looks is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    path: PathBuf,
    /// What has to be there: major:minor.
    device: String,
    depth: Depth,
}

impl Question {
    /// Looks; may hang, as it may. `stale` and `silent` are for whoever knows the file system.
    pub(crate) fn answer(&self) -> &'static str {
        match attempt(&self.path, &self.device, self.depth) {
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
        }
    }
}

/// How many names this process has asked for.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// False: the path leads to another device.
fn attempt(path: &Path, device: &str, depth: Depth) -> Result<bool, Errno> {
    // Only the daemon can answer this one.
    statvfs(path)?;
    let dev = lstat(path)?.st_dev;
    if format!("{}:{}", major(dev), minor(dev)) != device {
        return Ok(false);
    }
    if depth == Depth::Server {
        // A name that nobody has and nobody has asked for, so that no cache can answer.
        let (pid, asked) = (std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
        let name = path.join(format!(".dms-probe-{pid}-{asked}"));
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
