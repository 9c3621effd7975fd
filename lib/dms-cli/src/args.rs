//! Command lines: clap, with our exit code and our one line.

use std::io::{self, Write};

use clap::error::ErrorKind;

use crate::{Context, Exit, Failure};

/// Parses the command line. `--help` and `--version` print to stdout and end the process with 0;
/// a usage error is one line and exit code 100.
///
/// # Errors
/// What is wrong with the command line.
pub fn parse<T: clap::Parser>() -> Result<T, Failure> {
    let error = match T::try_parse() {
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
