//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Command, FromArgMatches, Parser};
use dms_cli::{Failure, Settings, refuse};
use dms_compose::RequestArgs;
use dms_wire::Action;

use crate::requests;
use crate::wanted::Wanted;

/// Mount, run a command, and unmount, however the command ends
#[derive(Parser)]
#[command(
    version,
    override_usage = "dms-with [--keep-going] [--strict] REQUEST... -- COMMAND [ARG...]
       dms-with [--strict] --job-id N --target-id ID [OPTIONS] -- COMMAND [ARG...]"
)]
pub(crate) struct Args {
    /// Run COMMAND also if not every request could be mounted
    #[arg(short, long)]
    keep_going: bool,

    /// If something could not be unmounted, that is exit code 1 or 111, where COMMAND's is 0
    #[arg(long)]
    strict: bool,

    /// Files with requests; - is standard input
    #[arg(value_name = "REQUEST")]
    requests: Vec<PathBuf>,

    #[command(flatten)]
    flags: Flags,

    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The flags of `dms-ledger request mount`, in place of a file.
struct Flags(Option<RequestArgs>);

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let mut command = command;
        let flags = RequestArgs::augment_args(Command::new(""));
        for (number, flag) in flags.get_arguments().enumerate() {
            // Behind our own.
            let flag = flag.clone().conflicts_with("requests").display_order(100 + number);
            command = command.arg(match flag.is_required_set() {
                true => flag.required(false).required_unless_present("requests"),
                false => flag,
            });
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // Without a file it is required.
        match matches.contains_id("job_id") {
            true => RequestArgs::from_arg_matches(matches).map(|args| Flags(Some(args))),
            false => Ok(Flags(None)),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What to do where something fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) keep_going: bool,
    pub(crate) strict: bool,
}

impl Args {
    /// The rules, the requests, and the command.
    pub(crate) fn read(
        self,
        settings: &Settings,
        token: Option<String>,
    ) -> Result<(Rules, Vec<Wanted>, Vec<OsString>), Failure> {
        let rules = Rules { keep_going: self.keep_going, strict: self.strict };
        let wanted = match self.flags.0 {
            Some(flags) => {
                let (line, _) = flags.compose(Action::Mount, settings, token)?;
                let wanted = Wanted::read(&line, None).map_err(|why| refuse(&why.to_string()))?;
                vec![wanted]
            }
            None => requests::read(&self.requests, token.as_deref())?,
        };
        Ok((rules, wanted, self.command))
    }
}
