//! dms-mount: make it so.
//!
//! For each request line it mounts or unmounts, as the plan says or, without one, as the request
//! does, and answers with what is now true. It knows the kernel's mounts, FUSE programs and
//! secrets; it knows no ledger: who uses a target is not its business.

mod check;
mod child;
mod cli;
mod daemon;
mod drain;
mod inventory;
mod list;
mod mount;
mod mountinfo;
mod nfs;
mod node;
mod operate;
mod place;
mod probe;
mod process;
mod ps;
mod record;
mod s3;
mod scan;
mod secrets;
mod serve;
mod settings;
mod source;
mod umount;
mod unmount;

use std::process::ExitCode;

use dms_cli::{Context, Exit, Failure, Settings};

use crate::cli::{Cli, Command};
use crate::node::Node;

fn main() -> ExitCode {
    dms_cli::main("dms-mount", run)
}

fn run() -> Result<Exit, Failure> {
    let cli: Cli = dms_cli::parse()?;
    let stdout = std::io::stdout();
    match cli.command {
        Some(Command::Probe { device, server, path }) => {
            return probe::main(&path, &device, server, stdout.lock());
        }
        Some(Command::Drain { log }) => return drain::main(&log),
        Some(Command::Scan(args)) => return scan::main(args, stdout.lock()),
        _ => {}
    }
    // The locks of a dms-lock above us are for our run, not for the daemons that outlive it.
    dms_flock::keep_from_children().context("unable to read", "/proc/self/fd")?;
    let (s3, nfs) = (settings::S3::from_env()?, settings::Nfs::from_env()?);
    let node = Node::new(Settings::from_env()?, s3, nfs, cli.policy()?)?;
    match cli.command {
        Some(Command::List) => list::list(&node, stdout.lock()),
        Some(Command::Ps(args)) => ps::ps(&node, &args, stdout.lock()),
        Some(Command::Kill(args)) => operate::kill(&node, &args, stdout.lock()),
        Some(Command::Clean) => operate::clean(&node, stdout.lock()),
        Some(Command::Check) => check::check(&node, stdout.lock()),
        _ => serve::serve(&node, stdout.lock()),
    }
}
