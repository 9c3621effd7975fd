//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use dms_compose::RequestArgs;

use crate::bindings;
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
    /// Make the ledger's tables, or what is missing of them
    Init {
        /// Print the SQL for it, and touch nothing
        #[arg(long)]
        print: bool,
    },

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

    /// Mark a job's row as deleted; one that is in use stays
    Forget(StatusArgs),

    /// Let all jobs go that use a target on a node, or a dead node; nothing is unmounted
    Release(ReleaseArgs),

    /// Take over pending operations and let jobs go that nobody has touched for long
    Cleanup(CleanupArgs),

    /// Do the rows agree with each other, and with `dms-mount list` on stdin?
    Audit(AuditArgs),

    /// What `dms-mount list` on stdin says to look at, as requests that settle it
    Reconcile(ReconcileArgs),

    /// Numbers for Prometheus
    Metrics,

    /// Is the ledger there, known, and complete, and may we write to it?
    Check,
}

impl Command {
    /// Whether it needs the ledger, wherever that is.
    pub(crate) fn opens_the_ledger(&self) -> bool {
        !matches!(self, Command::Request { .. } | Command::Init { print: true })
    }
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
    #[command(flatten)]
    pub(crate) output: OutputArgs,
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
    /// Only those that nobody has touched for so long: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct ReleaseArgs {
    /// The backup target; of a dead node, all if none is named
    #[arg(long, value_name = "ID", required_unless_present = "dead")]
    target_id: Option<String>,
    /// The node
    #[arg(long, value_name = "NODE")]
    pub(crate) host: String,
    /// Only this job
    #[arg(long, value_name = "N", conflicts_with = "dead")]
    job_id: Option<i32>,
    /// The node is dead, and writes to no pool any more: what it has imported is free for others
    #[arg(long)]
    pub(crate) dead: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct CleanupArgs {
    /// How long ago, at least
    #[arg(long, value_name = "N")]
    pub(crate) hours: Option<u32>,
    /// Remove operations from the journal that ended so long ago
    #[arg(long, value_name = "N")]
    pub(crate) journal_days: Option<u32>,
    /// Only say what would be done
    #[arg(long, conflicts_with = "journal_days")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct AuditArgs {
    /// Only this node; what is mounted is compared for it [default: all rows, this node's mounts]
    #[arg(long, value_name = "NODE")]
    pub(crate) host: Option<String>,
    /// Leave stdin alone, and compare nothing with it
    #[arg(long)]
    pub(crate) rows_only: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct ReconcileArgs {
    /// The node that the list is of [default: $DMS_NODE_ID, else this host's name]
    #[arg(long, value_name = "NODE")]
    pub(crate) host: Option<String>,
    /// Also unmount what is mounted and the ledger has never heard of
    #[arg(long)]
    pub(crate) take_unknown: bool,
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
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How rows are shown.
#[derive(Args, Clone, Copy)]
pub(crate) struct OutputArgs {
    /// JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Every column, moments in full, nothing cut
    #[arg(long, conflicts_with = "json")]
    pub(crate) wide: bool,
}

impl StatusArgs {
    pub(crate) fn not_found(&self) -> String {
        format!("no record of job {} and target {}", self.job_id, self.target_id)
    }

    pub(crate) fn filter(&self) -> bindings::Filter {
        bindings::Filter {
            job: Some(self.job_id.into()),
            target: Some(self.target_id.clone()),
            host: self.host.clone(),
            ..bindings::Filter::default()
        }
    }
}

impl ListArgs {
    pub(crate) fn filter(&self) -> bindings::Filter {
        bindings::Filter {
            job: self.job_id.map(i64::from),
            target: self.target_id.clone(),
            host: self.host.clone(),
            active_only: true,
            ..bindings::Filter::default()
        }
    }
}

impl ReleaseArgs {
    pub(crate) fn filter(&self) -> bindings::Filter {
        bindings::Filter {
            job: self.job_id.map(i64::from),
            target: self.target_id.clone(),
            host: Some(self.host.clone()),
            active_only: true,
            ..bindings::Filter::default()
        }
    }
}

/// A number and a unit.
fn age(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err("it is a number and one of s, m, h, d".into()),
    };
    let number = text[..text.len() - 1].parse::<u32>().map_err(|_| "it is not a number")?;
    Ok(Duration::from_secs(u64::from(number) * unit))
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
