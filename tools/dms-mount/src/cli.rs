//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Mount and unmount backup targets: a filter of request lines
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// What is mounted below the mount base, one JSON line each
    List,

    /// Keep what a daemon says on stdin, as long as it says something
    #[command(hide = true)]
    Drain {
        /// Where
        log: PathBuf,
    },

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
