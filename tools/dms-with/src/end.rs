//! How it ends: as the command did.

use dms_cli::{Exit, Failure};
use nix::sys::resource::{Resource, setrlimit};

/// The end of the command, or our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exit(Exit),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// Ends this process by the signal; or gives back the exit code.
    pub(crate) fn exit(self) -> Result<Exit, Failure> {
        let signal = match self {
            End::Exit(exit) => return Ok(exit),
            End::Signal(signal) => signal,
        };
        // The command has left its core, and ours would be in its place.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        // A real-time signal: as a shell says it.
        Ok(Exit::Code(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
    }
}
