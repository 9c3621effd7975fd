//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dms_cli::{Failure, refuse, seconds};

use crate::umount::{OnBusy, OnHung, Policy};

/// Mount and unmount backup targets: a filter of request lines
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// What to do about a mount that is in use [default: fail for s3, lazy for nfs]
    #[arg(long, value_name = "WHAT", hide_possible_values = true)]
    on_busy: Option<OnBusy>,

    /// What to do about a daemon that does not answer
    #[arg(long, value_name = "WHAT", default_value = "leave", hide_possible_values = true)]
    on_hung: OnHung,

    /// How long each step of an unmount may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    umount_timeout: f64,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// What is mounted below the mount base, one JSON line each
    List,

    /// The daemons of our mounts, and how they are
    Ps(PsArgs),

    /// End daemons of our mounts, with the data that they have not sent
    Kill(KillArgs),

    /// Put away what the dead have left behind, and take on what has lost its record
    Clean,

    /// Is all there that this node needs? One line each
    Check,

    /// Keep what a daemon says on stdin, as long as it says something
    #[command(hide = true)]
    Drain {
        /// Where
        log: PathBuf,
    },

    /// Print the numbers of the processes that are looked for
    #[command(hide = true)]
    Scan(ScanArgs),

    /// Say whether the mount at PATH is alive; may hang, as it may
    #[command(hide = true)]
    Probe {
        /// What has to be there: major:minor
        #[arg(long)]
        device: String,
        /// Ask its server too
        #[arg(long)]
        server: bool,
        path: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct PsArgs {
    /// Only of this target
    #[arg(value_name = "ID")]
    pub(crate) target: Option<String>,
    /// Again and again, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// All that is known of them
    #[arg(long)]
    pub(crate) detailed: bool,
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ScanArgs {
    /// Started with these entries in the environment, a line each; or with those of the next
    #[arg(long)]
    pub(crate) with: Vec<String>,
    /// With something open below this path
    #[arg(long)]
    pub(crate) below: Option<PathBuf>,
    /// Serving a FUSE mount at this path
    #[arg(long)]
    pub(crate) serving: Option<PathBuf>,
    /// Only this one
    #[arg(long)]
    pub(crate) pid: Option<i32>,
}

#[derive(Args)]
pub(crate) struct KillArgs {
    /// A target, or a process id
    #[arg(value_name = "ID|PID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) who: Option<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// KILL, not TERM
    #[arg(long)]
    pub(crate) force: bool,
}

impl Cli {
    /// How far an unmount may go.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        let step = seconds(self.umount_timeout).filter(|step| !step.is_zero());
        let step = step.ok_or_else(|| {
            refuse(&format!("--umount-timeout {} is not a number of seconds", self.umount_timeout))
        })?;
        Ok(Policy { on_busy: self.on_busy, on_hung: self.on_hung, step })
    }
}
