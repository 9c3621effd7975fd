//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use dms_cli::{Exit, Failure, Settings, refuse};
use dms_flock::{Mode, Wait};

use crate::each::Rules;

/// The file that Python clients lock while they wait for their listener.
const DEFAULT_NAME: &str = "dms_mount_unmount";

/// How long a filter may go on after the moment by which it should have answered by itself.
const GRACE: Duration = Duration::from_secs(30);

/// Run a command, or each request of a filter, under locks
#[derive(Parser)]
#[command(
    version,
    override_usage = "dms-lock [-s|-x] [-n | -w SECONDS] [-E CODE] [-o] [--group GROUP] [NAME...] -- COMMAND [ARG...]
       dms-lock --each [-s|-x] [-n | -w SECONDS] [NAME...] -- FILTER [ARG...]
       dms-lock --list [--json] [NAME...]
       dms-lock --clear"
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

    /// The exit code for a busy lock [default: 1]
    #[arg(short = 'E', long, value_name = "CODE", conflicts_with = "each")]
    conflict_exit_code: Option<u8>,

    /// Keep the locks from the command: they end when it does, whatever it leaves behind
    #[arg(short = 'o', long, conflicts_with = "each")]
    close: bool,

    /// Make the lock directory for the members of this group, too [default: $DMS_LOCK_GROUP]
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// Start the command once, as a filter, and take the locks anew for each request line:
    /// `node` shared, `target.ID` exclusive, and every NAME
    #[arg(long)]
    each: bool,

    /// Print who holds the locks, and who waits for them
    #[arg(long, conflicts_with_all = ["each", "clear", "command"])]
    list: bool,

    /// With --list: a line of JSON for each
    #[arg(long, requires = "list", conflicts_with = "command")]
    json: bool,

    /// Remove the files of all locks that nobody holds or wants
    #[arg(long, conflicts_with_all = ["each", "names", "command"])]
    clear: bool,

    /// The locks [default: dms_mount_unmount; with --each: none but the request's own; with
    /// --list: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// What to run
    #[arg(last = true, required_unless_present_any = ["list", "clear"], value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the command line asks for.
pub(crate) enum Form {
    /// Take the locks and become the command.
    Once(Once),
    /// Keep the command running and take locks for each line.
    Each(Rules, Vec<OsString>),
    /// Say who holds the locks.
    List { names: Vec<String>, as_json: bool },
    /// Remove what nobody needs.
    Clear,
}

/// A command under locks.
pub(crate) struct Once {
    pub(crate) names: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) wait: Wait,
    /// The exit code for a busy lock.
    pub(crate) busy: Exit,
    /// Whether this process keeps the locks, instead of becoming the command.
    pub(crate) keeps: bool,
    pub(crate) command: Vec<OsString>,
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
        if self.clear {
            return Ok(Form::Clear);
        }
        if self.list {
            return Ok(Form::List { names, as_json: self.json });
        }
        if self.each {
            // One budget for the wait in plan and one for the act, and the grace on top.
            let patience = settings.request_timeout * 2 + GRACE;
            return Ok(Form::Each(Rules { names, mode, wait, patience }, command));
        }
        if names.is_empty() {
            names.push(DEFAULT_NAME.to_owned());
        }
        let busy = self.conflict_exit_code.map_or(Exit::No, Exit::Code);
        let keeps = self.close;
        Ok(Form::Once(Once { names, mode, wait, busy, keeps, command }))
    }
}

/// A name is not a path, lest anybody take it for one: flock(1) has paths.
fn check_name(name: &str) -> Result<(), Failure> {
    let bad = name.is_empty()
        || name.starts_with('.')
        || name.contains('/')
        || name.chars().any(char::is_control);
    if bad { Err(refuse(&format!("{name:?} is not a lock name"))) } else { Ok(()) }
}
