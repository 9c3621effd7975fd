//! The exec form: become the command. Or, if the locks are not for the command to have, run it and
//! wait for it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use dms_cli::{Context, Exit, Failure};
use dms_flock::{Lock, life, life::Life};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::held::{self, Held};

/// Replaces this process by the command: same pid, same signals, same exit code. The locks and
/// the run's life lock go on in it and in every process it starts.
pub(crate) fn exec(life: &Life, held: Held, locks: &[Lock], command: &[OsString]) -> Failure {
    let passed = match locks.iter().map(Lock::pass_on).collect::<io::Result<Vec<_>>>() {
        Ok(passed) => passed,
        Err(why) => return Failure::temporary(format!("unable to pass on a lock: {why}")),
    };
    let held = held.with_descriptors(passed.iter().map(dms_flock::Passed::number));
    let _life = match life.pass_on() {
        Ok(passed) => passed,
        Err(why) => {
            let path = life.path().display();
            return Failure::temporary(format!("unable to pass on {path}: {why}"));
        }
    };
    cannot_run(&command[0], &prepare(life, &held, command).exec())
}

/// Runs the command beside this process, which keeps the locks until the command has ended: what
/// that leaves behind has none of them. Signals that would end us go to the command.
pub(crate) fn run(life: &Life, held: Held, command: &[OsString]) -> Result<Exit, Failure> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).context("unable to handle", "signals")?;
    let passed = life.pass_on().context("unable to pass on", life.path().display())?;
    let held = held.with_waiting(std::process::id());
    let mut child =
        prepare(life, &held, command).spawn().map_err(|why| cannot_run(&command[0], &why))?;
    drop(passed);
    let pid =
        i32::try_from(child.id()).map(Pid::from_raw).context("unable to run", "the command")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // It has ended if it cannot be told, and we are about to.
            let _ = Signal::try_from(signal).map(|signal| kill(pid, signal));
        }
    });
    let end = child.wait().context("unable to wait for", "the command")?;
    Ok(Exit::Code(code(end)))
}

/// As shells and flock(1) say it.
fn code(end: ExitStatus) -> u8 {
    let code = end.code().or_else(|| Some(128 + end.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(111)
}

fn prepare(life: &Life, held: &Held, command: &[OsString]) -> Command {
    // clap lets no empty command through.
    let (program, args) = command.split_at(1);
    let mut command = Command::new(&program[0]);
    command.args(args).env_remove(life::ONE_AT_A_TIME);
    command.env(life::VARIABLE, life.path()).env(held::VARIABLE, held.words());
    command
}

/// The failure to start a program: 127 if there is none, 126 otherwise.
pub(crate) fn cannot_run(program: &OsString, why: &io::Error) -> Failure {
    let exit = match why.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::CannotRun,
    };
    Failure::new(exit, format!("unable to run {}: {why}", program.display()))
}
