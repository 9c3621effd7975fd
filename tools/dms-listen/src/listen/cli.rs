//! The command line of dms-listen.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dms_cli::{Exit, Failure, Settings, refuse};

use crate::amqp::QueueName;
use crate::amqp::broker::Broker;
use crate::listen::message::Rules;
use crate::listen::worker::FilterSpec;
use crate::settings;

/// Hand the messages of a queue to a filter, one line each, and send back its answers
#[derive(Parser)]
#[command(version, override_usage = "dms-listen [OPTION...] -- FILTER [ARG...]")]
pub(crate) struct Cli {
    /// The queue to serve [default: dms.NODE]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,

    /// Run up to this many filters, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    jobs: usize,

    /// Requests that have the same value here (a JSON pointer) are done one after the other, in
    /// order; '' for no order
    #[arg(long, value_name = "POINTER", default_value = "/backup_target/id")]
    key: String,

    /// How long a request may take [default: $DMS_REQUEST_TIMEOUT, else 300]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,

    /// End a filter that has had nothing to do for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    idle: f64,

    /// On SIGTERM, give running requests this long
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    grace: f64,

    /// Answer also to queues of this name; * stands for any text [may be repeated]
    #[arg(long, value_name = "PATTERN")]
    reply_to: Vec<String>,

    /// What to run
    #[arg(last = true, required = true, value_name = "FILTER")]
    filter: Vec<OsString>,
}

/// What the command line and the settings come to.
pub(crate) struct Plan {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) queue: QueueName,
    pub(crate) jobs: usize,
    pub(crate) rules: Rules,
    pub(crate) filter: FilterSpec,
    pub(crate) grace: Duration,
}

impl Cli {
    pub(crate) fn plan(self, settings: Settings) -> Result<Plan, Failure> {
        let brokers = settings::brokers(&settings)?;
        let queue = match self.queue {
            Some(name) => QueueName::new(name).map_err(|why| refuse(&format!("--queue: {why}")))?,
            None => settings::own_queue(&settings)?,
        };
        if !(1..=1000).contains(&self.jobs) {
            return Err(refuse(&format!("--jobs {} is not from 1 to 1000", self.jobs)));
        }
        if !self.key.is_empty() && !self.key.starts_with('/') {
            return Err(refuse(&format!("--key {} is not a JSON pointer", self.key)));
        }
        let timeout = match self.timeout {
            Some(seconds) => settings::seconds("--timeout", seconds)?,
            None => settings.request_timeout,
        };
        if timeout.is_zero() {
            return Err(refuse("--timeout 0: no request could be done"));
        }
        check_program(&self.filter[0])?;
        let mut reply_to = vec!["amq.gen-*".to_owned(), "amq.rabbitmq.reply-to.*".to_owned()];
        reply_to.extend(self.reply_to);
        Ok(Plan {
            brokers,
            queue,
            jobs: self.jobs,
            rules: Rules {
                node: settings.node_id,
                key: Some(self.key).filter(|key| !key.is_empty()),
                timeout,
                reply_to,
            },
            filter: FilterSpec {
                command: self.filter,
                idle: settings::seconds("--idle", self.idle)?,
            },
            grace: settings::seconds("--grace", self.grace)?,
        })
    }
}

/// A filter that is not there is better known now than with the first request.
fn check_program(program: &OsStr) -> Result<(), Failure> {
    let candidates: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
    };
    let found: Vec<_> = candidates.iter().filter_map(|path| path.metadata().ok()).collect();
    if found.iter().any(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0) {
        return Ok(());
    }
    let (exit, why) = match found.is_empty() {
        true => (Exit::NotFound, "there is no such program"),
        false => (Exit::CannotRun, "it is no program"),
    };
    Err(Failure::new(exit, format!("unable to run {}: {why}", program.display())))
}
