//! The exec form: become the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use dms_cli::{Context, Exit, Failure, random_id};
use dms_flock::{Lock, life};

use crate::locks::LockDir;

/// Replaces this process by the command: same pid, same signals, same exit code. The locks and
/// the run's life lock go on in it and in every process it starts.
pub(crate) fn exec(locks: &LockDir, held: &[Lock], command: &[OsString]) -> Result<Exit, Failure> {
    let id = random_id().context("unable to read", "/proc/sys/kernel/random/uuid")?;
    let life = life::Life::begin(locks.path(), &id)
        .context("unable to make a life lock in", locks.path().display())?;
    let passing = "unable to pass on";
    let _life = life.pass_on().context(passing, life.path().display())?;
    let held: Result<Vec<_>, _> = held.iter().map(Lock::pass_on).collect();
    let _held = held.context(passing, "a lock")?;
    // clap lets no empty command through.
    let (program, args) = command.split_at(1);
    let mut command = Command::new(&program[0]);
    command.args(args).env(life::VARIABLE, life.path()).env_remove(life::ONE_AT_A_TIME);
    Err(cannot_run(&program[0], &command.exec()))
}

/// The failure to start a program: 127 if there is none, 126 otherwise.
pub(crate) fn cannot_run(program: &OsString, why: &io::Error) -> Failure {
    let exit = match why.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::CannotRun,
    };
    Failure::new(exit, format!("unable to run {}: {why}", program.display()))
}
