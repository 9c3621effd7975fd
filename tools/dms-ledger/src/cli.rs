//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::bindings;
use crate::compose::RequestArgs;
use crate::journal;

/// The ledger: which job uses which backup target, on which host
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the ledger's tables if they are not there
    Init,

    /// Filter: request lines in, requests with a plan out
    Plan,

    /// Filter: responses with a plan in, responses out; records what was done
    Commit,

    /// Print a request line made from flags
    Request {
        #[command(subcommand)]
        action: Wanted,
    },

    /// `request mount`, then `plan`
    Mount(Box<RequestArgs>),

    /// `request unmount`, then `plan`
    Unmount(Box<RequestArgs>),

    /// One job's use of one target
    Status(StatusArgs),

    /// The bindings that are active
    #[command(visible_alias = "list-mounts")]
    List(ListArgs),

    /// The operations, newest first
    History(HistoryArgs),
}

#[derive(Subcommand)]
pub(crate) enum Wanted {
    /// The job wants to use the target
    Mount(Box<RequestArgs>),
    /// The job is done with the target
    Unmount(Box<RequestArgs>),
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The job
    #[arg(long, value_name = "N")]
    job_id: i32,
    /// The backup target
    #[arg(long, value_name = "ID")]
    target_id: String,
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    host: Option<String>,
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    host: Option<String>,
    /// Only of this backup target
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// Only of this job
    #[arg(long, value_name = "N")]
    job_id: Option<i32>,
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct HistoryArgs {
    /// Only of this backup target
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// Only of this job
    #[arg(long, value_name = "N")]
    job_id: Option<i32>,
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    host: Option<String>,
    /// Only with this status
    #[arg(long, value_name = "STATUS", value_parser = ["pending", "success", "error", "unsettled"])]
    status: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl StatusArgs {
    pub(crate) fn not_found(&self) -> String {
        format!("no record of job {} and target {}", self.job_id, self.target_id)
    }

    pub(crate) fn filter(&self) -> bindings::Filter {
        bindings::Filter {
            job: Some(self.job_id),
            target: Some(self.target_id.clone()),
            host: self.host.clone(),
            ..bindings::Filter::default()
        }
    }
}

impl ListArgs {
    pub(crate) fn filter(&self) -> bindings::Filter {
        bindings::Filter {
            job: self.job_id,
            target: self.target_id.clone(),
            host: self.host.clone(),
            active_only: true,
            ..bindings::Filter::default()
        }
    }
}

impl HistoryArgs {
    pub(crate) fn filter(&self) -> journal::Filter {
        journal::Filter {
            job: self.job_id,
            target: self.target_id.clone(),
            host: self.host.clone(),
            status: self.status.clone(),
            limit: Some(self.limit),
            ..journal::Filter::default()
        }
    }
}
