//! The line that says what is being waited for: on a terminal only, and only while somebody waits.

use std::io::{IsTerminal, PipeReader, Read, Write, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::{getpgrp, tcgetpgrp};

/// Standard error, if people look at it.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    /// Whether the line is there.
    shown: Mutex<bool>,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        // One that cannot take a line away again gets none.
        let can_erase =
            std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        Screen { is_terminal: stderr().is_terminal() && can_erase, shown: Mutex::default() }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows the line, in place of the one that is there; not from the background.
    pub(crate) fn show(&self, text: &str, elapsed: Duration) {
        if !self.is_terminal || !tcgetpgrp(stderr()).is_ok_and(|group| group == getpgrp()) {
            return;
        }
        let mut shown = self.lock();
        // Without wrapping: what goes on in a second line cannot be erased with the first.
        let line = format!("\r\x1b[K\x1b[?7ldms-with: {text} ({})\x1b[?7h", span(elapsed));
        write(line.as_bytes());
        *shown = true;
    }

    /// Takes it away.
    pub(crate) fn clear(&self) {
        erase(&mut self.lock());
    }

    /// Passes on what a pipeline says, until it says no more.
    pub(crate) fn relay(&self, mut said: PipeReader) {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = said.read(&mut chunk) {
            let mut shown = self.lock();
            erase(&mut shown);
            write(&chunk[..length]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn erase(shown: &mut bool) {
    if std::mem::take(shown) {
        write(b"\r\x1b[K");
    }
}

/// A terminal that is gone is no reason to leave anything mounted.
fn write(bytes: &[u8]) {
    let mut stderr = stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

fn span(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ ..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (65, "1m05s"), (3_720, "1h02m")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
