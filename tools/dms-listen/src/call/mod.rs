//! The caller: request lines in, response lines out, each answered by the listener of the node
//! that it names.

mod ask;
mod check;
mod cli;
mod line;
mod serve;

use dms_cli::{Config, Exit, Failure, Files, Settings};

use crate::call::cli::{Cli, Form};

/// dms-call.
///
/// # Errors
/// Usage, configuration, and what the system refuses at the start.
pub fn run() -> Result<Exit, Failure> {
    let cli: Option<Cli> = dms_cli::parse()?;
    let config = Config::read(Files::Client)?;
    let settings = Settings::read(&config)?;
    let Some(cli) = cli else { return config.print() };
    match cli.form(&settings)? {
        Form::Check { brokers, queue, patience } => check::check(&brokers, &queue, patience),
        Form::Serve(caller) => serve::serve(&caller, std::io::stdout().lock()),
    }
}
