//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use dms_cli::{Failure, Settings, refuse};
use dms_flock::{Mode, Wait};

/// The file that Python clients lock while they wait for their listener.
const DEFAULT_NAME: &str = "dms_mount_unmount";

/// How long a filter may go on after the moment by which it should have answered by itself.
const GRACE: Duration = Duration::from_secs(30);

/// Run a command, or each request of a filter, under locks
#[derive(Parser)]
#[command(
    version,
    override_usage = "dms-lock [-s|-x] [-n | -w SECONDS] [NAME...] -- COMMAND [ARG...]
       dms-lock --each [-s|-x] [-n | -w SECONDS] [NAME...] -- FILTER [ARG...]"
)]
pub(crate) struct Args {
    /// Take the locks shared
    #[arg(short, long, conflicts_with = "exclusive")]
    shared: bool,

    /// Take the locks exclusive (the default)
    #[arg(short = 'x', long)]
    exclusive: bool,

    /// Do not wait: a busy lock is exit code 1
    #[arg(short, long, conflicts_with = "wait")]
    nonblock: bool,

    /// Wait this long at most [default: $DMS_LOCK_TIMEOUT, else 300]
    #[arg(short, long, value_name = "SECONDS")]
    wait: Option<f64>,

    /// Start the command once, as a filter, and take the locks anew for each request line:
    /// `node` shared, `target.ID` exclusive, and every NAME
    #[arg(long)]
    each: bool,

    /// The locks [default: dms_mount_unmount; with --each: none but the request's own]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the command line asks for.
pub(crate) enum Form {
    /// Take the locks and become the command.
    Exec { names: Vec<String>, mode: Mode, wait: Wait, command: Vec<OsString> },
    /// Keep the command running and take locks for each line. `patience`: how long to wait for the
    /// answer to a request without a deadline.
    Each { names: Vec<String>, mode: Mode, wait: Wait, patience: Duration, command: Vec<OsString> },
}

impl Args {
    pub(crate) fn form(self, settings: &Settings) -> Result<Form, Failure> {
        let mode = if self.shared { Mode::Shared } else { Mode::Exclusive };
        let wait = match self.wait {
            _ if self.nonblock => Wait::No,
            Some(0.0) => Wait::No,
            Some(seconds) => Wait::For(
                dms_cli::seconds(seconds)
                    .ok_or_else(|| refuse(&format!("-w {seconds} is not a number of seconds")))?,
            ),
            None => Wait::For(settings.lock_timeout),
        };
        let (mut names, command) = (self.names, self.command);
        for name in &names {
            check_name(name)?;
        }
        if self.each {
            // One budget for the wait in plan and one for the act, and the grace on top.
            let patience = settings.request_timeout * 2 + GRACE;
            return Ok(Form::Each { names, mode, wait, patience, command });
        }
        if names.is_empty() {
            names.push(DEFAULT_NAME.to_owned());
        }
        Ok(Form::Exec { names, mode, wait, command })
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let bad = name.is_empty()
        || name.starts_with('.')
        || name.contains('/')
        || name.chars().any(char::is_control)
        || name.len() > 255 - ".lock".len();
    if bad { Err(refuse(&format!("{name:?} is not a lock name"))) } else { Ok(()) }
}
