//! Command lines: clap, with our exit code and our one line.

use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, ValueEnum};
use clap_complete::Shell;

use crate::{Context, Exit, Failure};

const PRINT_CONFIG: &str = "print-config";

/// Parses the command line; `None`: the settings are to be shown, with `--print-config`, which every
/// tool has, whatever else there is. `--help` and `--version` print to stdout and end the process
/// with 0; a usage error is one line and exit code 100.
///
/// # Errors
/// What is wrong with the command line.
pub fn parse<T: clap::Parser>() -> Result<Option<T>, Failure> {
    let print_config = Arg::new(PRINT_CONFIG)
        .long(PRINT_CONFIG)
        .action(ArgAction::SetTrue)
        .help("Show every setting, and where it comes from; no passwords");
    let mut command = T::command().arg(print_config);
    // Not clap's to see: it would want all that is needed for something else.
    let options = std::env::args_os().skip(1).take_while(|arg| arg != "--");
    match options.filter_map(|arg| Alone::read(arg.to_str()?)).next() {
        Some(Alone::PrintConfig) => return Ok(None),
        Some(Alone::Completions(shell)) => return complete(&mut command, shell),
        None => {}
    }
    let parsed = command.try_get_matches();
    let parsed = parsed.and_then(|matches| T::from_arg_matches(&matches).map(Some));
    let error = match parsed {
        Ok(args) => return Ok(args),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = error.render().to_string();
        let mut stdout = std::io::stdout().lock();
        return match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
                Err(why).context("unable to write", "stdout")
            }
            _ => std::process::exit(Exit::Done.code().into()),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(refuse("a command is missing (see --help)"));
    }
    Err(refuse(&one_line(&error.render().to_string())))
}

/// Options that make all others meaningless.
enum Alone {
    PrintConfig,
    /// For `make install`, and for nobody else: `--completions=SHELL`.
    Completions(Shell),
}

impl Alone {
    fn read(arg: &str) -> Option<Alone> {
        let option = arg.strip_prefix("--")?;
        match option.strip_prefix("completions=") {
            Some(shell) => Shell::from_str(shell, false).ok().map(Alone::Completions),
            None => (option == PRINT_CONFIG).then_some(Alone::PrintConfig),
        }
    }
}

/// Prints what the shell needs to complete the command line.
fn complete<T>(command: &mut Command, shell: Shell) -> Result<T, Failure> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, command, name, &mut script);
    std::io::stdout().lock().write_all(&script).context("unable to write", "stdout")?;
    std::process::exit(Exit::Done.code().into());
}

/// A usage error with a hint.
pub fn refuse(text: &str) -> Failure {
    Failure::permanent(text)
}

/// clap's message without its decoration: what is wrong, and where to look.
fn one_line(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    let first = text.split("\n\n").next().unwrap_or(text);
    format!("{} (see --help)", first.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_usage_error_is_one_line() {
        let text = "error: unexpected argument '-q' found\n\n  tip: x\n\nUsage: x [OPTIONS]\n\n\
                    For more information, try '--help'.\n";
        assert_eq!(super::one_line(text), "unexpected argument '-q' found (see --help)");
    }
}
