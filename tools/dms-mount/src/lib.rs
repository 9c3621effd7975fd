//! dms-mount: make it so.
//!
//! For each request line it mounts or unmounts, as the plan says or, without one, as the request
//! does, and answers with what is now true. It knows the kernel's mounts, FUSE programs and
//! secrets; it knows no ledger: who uses a target is not its business.

mod act;
mod check;
mod child;
mod cli;
mod daemon;
mod drain;
mod ended;
mod failed;
mod fence;
mod inventory;
mod join;
mod list;
mod look;
mod metrics;
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
mod run_dir;
mod s3;
mod scan;
mod scope;
mod seal;
mod secrets;
mod serve;
mod session;
mod settings;
mod source;
mod tracked;
mod umount;
mod unmount;
mod zfs;

use std::process::ExitCode;

use dms_cli::{Config, Context, Exit, Failure, Files, Settings};

use crate::cli::{Cli, Command};
use crate::node::{Node, Types};

/// The main of `dms-mount`.
#[must_use]
pub fn main() -> ExitCode {
    dms_cli::main("dms-mount", run)
}

/// The main of what `dms-mount` starts to ask a key manager.
#[must_use]
pub fn main_with_key_manager() -> ExitCode {
    dms_cli::main("dms-mount", secrets::answer)
}

fn run() -> Result<Exit, Failure> {
    let cli: Option<Cli> = dms_cli::parse()?;
    let stdout = std::io::stdout();
    match cli.as_ref().and_then(|cli| cli.command.as_ref()) {
        Some(Command::Look) => return look::main(stdout.lock()),
        Some(Command::Drain { directory }) => return drain::main(directory),
        _ => {}
    }
    // The locks of a dms-lock above us are for our run, not for the daemons that outlive it.
    dms_flock::keep_from_children().context("unable to read", "/proc/self/fd")?;
    let config = Config::read(Files::Node)?;
    // Neither a filter that runs for months nor what it starts keeps a directory busy. All paths of the
    // settings are absolute.
    std::env::set_current_dir("/").context("unable to go to", "/")?;
    let settings = Settings::read(&config)?;
    let (s3, nfs) = (settings::S3::read(&config)?, settings::Nfs::read(&config)?);
    let zfs = settings::Zfs::read(&config)?;
    let policy = settings::policy(&config, cli.as_ref().map(|cli| cli.policy).unwrap_or_default())?;
    let Some(cli) = cli else { return config.print() };
    let node = Node::new(settings, Types { s3, nfs, zfs }, policy)?;
    match cli.command {
        Some(Command::List) => list::list(&node, stdout.lock()),
        Some(Command::Ps(args)) => ps::ps(&node, &args, stdout.lock()),
        Some(Command::Kill(args)) => operate::kill(&node, &args, stdout.lock()),
        Some(Command::Clean) => operate::clean(&node, stdout.lock()),
        Some(Command::Metrics) => metrics::metrics(&node, stdout.lock()),
        Some(Command::Check) => check::check(&node, stdout.lock()),
        _ => serve::serve(&node, stdout.lock()),
    }
}
