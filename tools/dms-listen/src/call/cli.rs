//! The command line of dms-call.

use std::time::Duration;

use clap::Parser;
use dms_cli::{Failure, Settings, refuse};

use crate::amqp::QueueName;
use crate::amqp::broker::Broker;
use crate::call::serve::Caller;
use crate::settings;

/// Ask the listener of a node: a filter of request lines
#[derive(Parser)]
#[command(
    name = "dms-call",
    version,
    override_usage = "dms-call [--timeout SECONDS] [--wait-for-listener]
       dms-call --check [--host NODE] [--timeout SECONDS]"
)]
pub(crate) struct Cli {
    /// How long to wait for an answer [default: $DMS_REQUEST_TIMEOUT, else 300; with --check: 10]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,

    /// Where nobody listens, wait until somebody does; the time-out stays
    #[arg(long)]
    wait_for_listener: bool,

    /// Send nothing: is the broker there, and does the node listen?
    #[arg(long, conflicts_with = "wait_for_listener")]
    check: bool,

    /// With --check: the node [default: this one]
    #[arg(long, value_name = "NODE", requires = "check")]
    host: Option<String>,
}

/// What the command line asks for.
pub(crate) enum Form {
    /// Look whether a node listens.
    Check { brokers: Vec<Broker>, queue: QueueName, patience: Duration },
    /// Ask for each line.
    Serve(Caller),
}

impl Cli {
    pub(crate) fn form(self, settings: &Settings) -> Result<Form, Failure> {
        let brokers = settings::brokers(settings)?;
        let timeout = self.timeout.map(|s| settings::seconds("--timeout", s)).transpose()?;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(refuse("--timeout 0: no request could be done"));
        }
        if self.check {
            let queue = match &self.host {
                Some(node) => {
                    QueueName::of_node(node).map_err(|why| refuse(&format!("--host: {why}")))?
                }
                None => settings::own_queue(settings)?,
            };
            let patience = timeout.unwrap_or(Duration::from_secs(10));
            return Ok(Form::Check { brokers, queue, patience });
        }
        Ok(Form::Serve(Caller {
            brokers,
            timeout: timeout.unwrap_or(settings.request_timeout),
            waits: self.wait_for_listener,
        }))
    }
}
