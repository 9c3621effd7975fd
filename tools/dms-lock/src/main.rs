//! dms-lock: flock, nothing else.
//!
//! Either it takes its locks and becomes the command (the locks live as long as any process of
//! it), or it takes them anew for each request that it hands to a filter. It knows of a request
//! only which target it is for, and until when somebody waits for the answer.

mod cli;
mod each;
mod filter;
mod locks;
mod replace;

use std::process::ExitCode;

use dms_cli::{Exit, Failure, Settings};

use crate::cli::{Args, Form};

fn main() -> ExitCode {
    dms_cli::main("dms-lock", run)
}

fn run() -> Result<Exit, Failure> {
    let args: Args = dms_cli::parse()?;
    let settings = Settings::from_env()?;
    let locks = locks::LockDir::open(&settings.lock_dir)?;
    match args.form(&settings)? {
        Form::Exec { names, mode, wait, command } => {
            let held = locks.take(&names, mode, wait)?;
            replace::exec(&locks, &held, &command)
        }
        Form::Each { names, mode, wait, patience, command } => {
            let rules = each::Rules { locks: &locks, names, mode, wait, patience };
            each::serve(&rules, &command, std::io::stdout().lock())
        }
    }
}
