//! Is a mount alive? Only I/O on it can tell, and I/O on a mount can hang for ever: so another
//! process does it (this program, as `dms-mount probe`), and is killed if it takes too long.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use crate::child;

/// What the I/O said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Somebody answered; "permission denied" and "input/output error" are answers too.
    Alive,
    /// Nobody is there any more to answer.
    Gone,
    /// No answer in time.
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
pub(crate) fn health(path: &Path, depth: Depth, bound: Duration) -> io::Result<Health> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("probe").env_clear();
    if depth == Depth::Server {
        command.arg("--server");
    }
    command.arg("--").arg(path);
    match child::run(&mut command, bound, None)? {
        None => Ok(Health::Hung),
        Some(ended) => match ended.stdout.trim() {
            "alive" => Ok(Health::Alive),
            "gone" => Ok(Health::Gone),
            _ => Err(io::Error::other(format!("the probe failed: {}", ended.stderr))),
        },
    }
}

/// The probe's own main: says `alive` or `gone`.
pub(crate) fn main(path: &Path, server: bool, mut output: impl Write) -> Result<Exit, Failure> {
    let depth = if server { Depth::Server } else { Depth::Daemon };
    let word = match attempt(path, depth) {
        Err(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ESHUTDOWN) => "gone",
        Ok(()) | Err(_) => "alive",
    };
    writeln!(output, "{word}").context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

fn attempt(path: &Path, depth: Depth) -> Result<(), Errno> {
    statvfs(path)?;
    if depth == Depth::Server {
        // A name that nobody has, so that no cache can answer.
        let name: PathBuf = path.join(format!(".dms-probe-{}", std::process::id()));
        match nix::sys::stat::lstat(&name) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}
