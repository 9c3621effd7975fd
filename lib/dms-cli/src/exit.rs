//! How a tool ends: one line on stderr and an exit code, always together.

use std::fmt::Display;
use std::process::ExitCode;

use nix::unistd::{getegid, geteuid, getgid, getuid};

/// Exit codes. 101, a bug, is Rust's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The honest no: a response said error, a lock was busy.
    No,
    /// Usage or configuration: trying again is no use.
    Permanent,
    /// Network, database, system call: trying again may help.
    Temporary,
    /// The command is there but cannot be run.
    CannotRun,
    /// There is no such command.
    NotFound,
    /// The code of a command that ran in our place.
    Code(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Permanent => 100,
            Exit::Temporary => 111,
            Exit::CannotRun => 126,
            Exit::NotFound => 127,
            Exit::Code(code) => code,
        }
    }
}

/// The end of a process that could not do its work: the text of its one line, and its code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// An end with this code and this text (`unable to VERB OBJECT: reason`).
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Failure { exit, text: plain(&text.into()) }
    }

    /// Usage or configuration.
    pub fn permanent(text: impl Into<String>) -> Self {
        Failure::new(Exit::Permanent, text)
    }

    /// Whether trying again may help.
    pub fn is_temporary(&self) -> bool {
        self.exit == Exit::Temporary
    }

    /// Network, database, system call.
    pub fn temporary(text: impl Into<String>) -> Self {
        Failure::new(Exit::Temporary, text)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Without Rust's ` (os error 2)` behind the system's own words, and on one line.
pub fn plain(text: &str) -> String {
    let mut plain = text.trim().replace(['\n', '\r'], " ");
    while let Some(start) = plain.find(" (os error ") {
        let end = plain[start..].find(')').map_or(plain.len(), |length| start + length + 1);
        plain.replace_range(start..end, "");
    }
    plain
}

/// Names the object where it is known: `.context("unable to read", path.display())`.
pub trait Context<T> {
    /// Makes the error a temporary failure that reads `<what> <object>: <reason>`.
    ///
    /// # Errors
    /// If this is an error.
    fn context(self, what: &str, object: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, what: &str, object: impl Display) -> Result<T, Failure> {
        self.map_err(|why| Failure::temporary(format!("{what} {object}: {why}")))
    }
}

/// The whole of a tool's `main`: sets up the log, runs, and turns the result into a line and a
/// code. A closed stdout is a quiet end (`run` reports it as success).
pub fn main(tool: &'static str, run: impl FnOnce() -> Result<Exit, Failure>) -> ExitCode {
    crate::logging::start(tool);
    let exit = match refuse_setuid().and_then(|()| run()) {
        Ok(exit) => exit,
        Err(Failure { exit, text }) => {
            crate::logging::fatal(tool, &text);
            exit
        }
    };
    ExitCode::from(exit.code())
}

/// Whoever runs a setuid program chooses its environment, and all our settings are there.
fn refuse_setuid() -> Result<(), Failure> {
    if getuid() != geteuid() || getgid() != getegid() {
        return Err(Failure::permanent("setuid or setgid: not to be run as somebody else"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_system_error_is_told_in_words_alone() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(super::plain(&format!("x: {error}; y")), "x: No such file or directory; y");
    }
}
