//! The log: stderr, one line a message, `tool: level: text`, and which request it is about. No time:
//! the journal has it.
//!
//! Where stderr is the journal, the lines go there on a stream of the tool's own, with their
//! priority: all tools of a unit share its stderr, and would all be told as one.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use log::{Level, LevelFilter};
use nix::sys::stat::fstat;

use crate::config::Value;

/// systemd's way in, see sd_journal_stream_fd(3).
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// Set by systemd, to say which device and inode the journal's end of standard error is.
pub const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// The variable's value, if standard error is the journal.
pub fn journal_stream() -> Option<String> {
    let stream = std::env::var(JOURNAL_STREAM).ok()?;
    let about = fstat(io::stderr()).ok()?;
    (stream == format!("{}:{}", about.st_dev, about.st_ino)).then_some(stream)
}

/// The tool's own stream, if it has one.
static STREAM: OnceLock<Option<UnixStream>> = OnceLock::new();

thread_local! {
    static ABOUT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// While this lives, the log lines of this thread say what they are about.
#[must_use]
pub struct About {
    before: String,
}

/// Says behind each line what it is about: `request ID, job N, target T`.
pub fn about(words: &str) -> About {
    About { before: ABOUT.replace(format!(" ({words})")) }
}

/// What they are about now, for a process that goes on with it; empty: nothing.
pub fn about_what() -> String {
    let shown = ABOUT.with_borrow(String::clone);
    let words = shown.strip_prefix(" (").and_then(|words| words.strip_suffix(')'));
    words.unwrap_or_default().to_owned()
}

impl Drop for About {
    fn drop(&mut self) {
        ABOUT.set(std::mem::take(&mut self.before));
    }
}

/// Starts the log at `DMS_LOG_LEVEL` (default `INFO`), until the settings have been read.
pub(crate) fn start(tool: &'static str) {
    let _ = STREAM.set(journal_stream().and_then(|_| open(tool).ok()));
    let word = std::env::var("DMS_LOG_LEVEL").unwrap_or_default();
    env_logger::Builder::new()
        // A library knows nothing of secrets, and would log what it sends: only we have a word.
        .filter_level(LevelFilter::Off)
        .filter_module("dms", LevelFilter::Trace)
        .target(env_logger::Target::Pipe(Box::new(Output)))
        .format(move |out, record| {
            let (priority, level) = match record.level() {
                Level::Error => (3, "error"),
                Level::Warn => (4, "warning"),
                Level::Info => (6, "info"),
                Level::Debug => (7, "debug"),
                Level::Trace => (7, "trace"),
            };
            // One record, one line, whatever a peer put into its words.
            let text = record.args().to_string().replace(['\n', '\r'], " ");
            let about = ABOUT.with_borrow(String::clone);
            writeln!(out, "{}{tool}: {level}: {text}{about}", prefix(priority))
        })
        .init();
    log::set_max_level(level(&word).unwrap_or(LevelFilter::Info));
}

/// The last words.
pub(crate) fn fatal(tool: &str, text: &str) {
    // If nobody takes them, the exit code still tells.
    let _ = Output.write_all(format!("{}{tool}: fatal: {text}\n", prefix(2)).as_bytes());
}

/// Sets the level. An unknown one is a warning, and INFO.
pub(crate) fn set_level(value: &Value) {
    let level = level(&value.text);
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
    if level.is_none() {
        log::warn!("{} {:?} is no log level: using INFO", value.name, value.text);
    }
}

/// How the journal takes a priority (sd-daemon(3)).
fn prefix(priority: u8) -> String {
    match STREAM.get() {
        Some(Some(_)) => format!("<{priority}>"),
        _ => String::new(),
    }
}

/// A stream by the tool's name. Which unit it is of, the journal sees; priorities stand before the
/// lines; nothing is sent on.
fn open(tool: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(JOURNAL)?;
    stream.write_all(format!("{tool}\n\n6\n1\n0\n0\n0\n").as_bytes())?;
    Ok(stream)
}

/// The tool's own stream, or standard error.
struct Output;

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(Some(mut stream)) = STREAM.get().map(Option::as_ref)
            && let Ok(count) = stream.write(line)
        {
            return Ok(count);
        }
        io::stderr().lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Our names and Python's.
fn level(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_uppercase().as_str() {
        "OFF" => LevelFilter::Off,
        "ERROR" | "CRITICAL" | "FATAL" => LevelFilter::Error,
        "WARN" | "WARNING" => LevelFilter::Warn,
        "" | "INFO" => LevelFilter::Info,
        "DEBUG" => LevelFilter::Debug,
        "TRACE" | "NOTSET" => LevelFilter::Trace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_level_names_are_understood() {
        assert_eq!(level("WARNING"), Some(LevelFilter::Warn));
        assert_eq!(level("critical"), Some(LevelFilter::Error));
        assert_eq!(level(""), Some(LevelFilter::Info));
        assert_eq!(level("LOUD"), None);
    }

    #[test]
    fn what_a_line_is_about_ends_with_its_request() {
        let words = || ABOUT.with_borrow(String::clone);
        let outer = about("request a");
        {
            let _inner = about("request b");
            assert_eq!(words(), " (request b)");
        }
        assert_eq!(words(), " (request a)");
        drop(outer);
        assert_eq!(words(), "");
    }
}
