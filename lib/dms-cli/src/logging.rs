//! The log: stderr, one line a message, `tool: level: text`. No time: the journal has it.

use std::io::Write;

use log::{Level, LevelFilter};

/// Starts the log at `DMS_LOG_LEVEL` (default `INFO`). An unknown level is a warning, and INFO.
pub(crate) fn start(tool: &'static str) {
    let word = std::env::var("DMS_LOG_LEVEL").unwrap_or_default();
    let level = level(&word);
    env_logger::Builder::new()
        // A library knows nothing of secrets, and would log what it sends: only we have a word.
        .filter_level(LevelFilter::Off)
        .filter_module("dms", level.unwrap_or(LevelFilter::Info))
        .format(move |out, record| {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            // One record, one line, whatever a peer put into its words.
            let text = record.args().to_string().replace(['\n', '\r'], " ");
            writeln!(out, "{tool}: {level}: {text}")
        })
        .init();
    if level.is_none() {
        log::warn!("DMS_LOG_LEVEL {word:?} is no log level: using INFO");
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
}
