//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::umount::{OnBusy, OnHung};

/// Mount and unmount backup targets: a filter of request lines
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How far an unmount may go, beside the settings.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct PolicyArgs {
    /// What to do about a mount that is in use [default: $DMS_ON_BUSY, else fail for s3, lazy for
    /// nfs]
    #[arg(long, value_name = "WHAT", hide_possible_values = true)]
    pub(crate) on_busy: Option<OnBusy>,

    /// What to do about a daemon that does not answer [default: $DMS_ON_HUNG, else leave]
    #[arg(long, value_name = "WHAT", hide_possible_values = true)]
    pub(crate) on_hung: Option<OnHung>,

    /// How long each step of an unmount may take [default: $DMS_UMOUNT_TIMEOUT, else 60]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) umount_timeout: Option<f64>,
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

    /// The daemons in numbers, for Prometheus
    Metrics,

    /// Is all there that this node needs? One line each
    Check,

    /// Keep what daemons say, whose pipes come over the socket on stdin, as long as they say something
    #[command(hide = true)]
    Drain {
        /// Where
        directory: PathBuf,
    },

    /// Answer on stdout what is asked on stdin, of mounts and processes; may hang, as they may
    #[command(hide = true)]
    Look,
}

#[derive(Args)]
pub(crate) struct PsArgs {
    /// Only of this target
    #[arg(value_name = "ID")]
    pub(crate) target: Option<String>,
    /// Again and again, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// All that is known of them, and how each mount answers
    #[arg(long)]
    pub(crate) detailed: bool,
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
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
