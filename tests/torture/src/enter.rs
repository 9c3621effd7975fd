//! Runs a command in the namespaces of a node, and ends as it does. nsenter(1) would stop whenever its
//! command is stopped, and not go on with it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// What it is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The node's first process
    init: i32,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// The command's exit code; 128 and the signal's number if a signal ended it.
pub(crate) fn run(options: &Options) -> io::Result<u8> {
    // Opened first: with the mounts, /proc is another.
    let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", options.init));
    let spaces = ["net", "uts", "pid", "time", "mnt"].map(open);
    for space in spaces {
        setns(space?, CloneFlags::empty())?;
    }
    let status = Command::new(&options.command[0]).args(&options.command[1..]).status()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
