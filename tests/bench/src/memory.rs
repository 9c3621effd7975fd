//! What processes have of the machine: memory, processor time, wake-ups.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

use crate::table::say;

/// The argument with which this program runs a command and says how large that was.
pub(crate) const WORD: &str = "--largest";

/// Runs a command to its end, without its output, and prints its largest resident size in KiB. By a
/// process of its own: the kernel tells the largest of all children that there were.
pub(crate) fn main(command: &[String]) -> ExitCode {
    let Some((program, args)) = command.split_first() else { return ExitCode::from(100) };
    let ended = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match (ended, getrusage(UsageWho::RUSAGE_CHILDREN)) {
        (Ok(status), Ok(usage)) if status.success() => {
            say(&usage.max_rss().to_string());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// The largest resident size that this command comes to, in MiB.
pub(crate) fn largest(command: &Command) -> f64 {
    let this = std::env::current_exe().expect("/proc is there");
    let mut measured = Command::new(this);
    measured.arg(WORD).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    let output = measured.output().expect("it is this program");
    let text = String::from_utf8_lossy(&output.stdout);
    let kib: f64 = text.trim().parse().unwrap_or_else(|_| panic!("{command:?} failed"));
    kib / 1024.0
}

/// A process's own share of memory, in MiB; nothing if it has ended.
pub(crate) fn share(pid: i32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// The processor time that these processes have had, in seconds; those that have ended have none.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn processor_time(pids: &[i32]) -> f64 {
    let ticks = |pid: &i32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    // The kernel's unit for programs is a hundredth of a second, whatever its own is.
    pids.iter().filter_map(ticks).sum::<u64>() as f64 / 100.0
}
