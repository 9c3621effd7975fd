//! The command: started as if nobody stood before it, passed what we are sent, and waited for.
//!
//! It is a child in our own process group, so that the terminal treats the two as one job: Ctrl-C
//! and Ctrl-Z reach both, and so does whoever continues them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use dms_cli::{Context, Exit, Failure};
use dms_flock::life::{self, Life};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};

use crate::end::End;
use crate::events::{Event, Events, Received};

/// How long a stop has to last to be one: one that we shared is over when we go on.
const SETTLE: Duration = Duration::from_millis(20);

/// There is no end to wait for but that of the command.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// Runs it to its end. It belongs to our run: as long as it or what it has started lives, so does
/// the life lock.
pub(crate) fn run(
    command: &[OsString],
    paths: &[String],
    life: &Life,
    events: &Events,
) -> Result<End, Failure> {
    let mut child = start(command, paths, life)?;
    let started = Instant::now();
    let pid = Pid::from_raw(child.id().cast_signed());
    let to = events.sender();
    thread::spawn(move || watch(pid, &to));
    loop {
        match events.next(FOR_EVER) {
            Some(Event::Signal(received)) => pass_on(pid, &received, started),
            Some(Event::Stopped) => stop_too(),
            Some(Event::Ended) => return reap(&mut child),
            Some(Event::Answer(..)) | None => {}
        }
    }
}

fn start(command: &[OsString], paths: &[String], life: &Life) -> Result<Child, Failure> {
    let _passed = life.pass_on().context("unable to pass on", life.path().display())?;
    // clap lets no empty command through.
    let (program, args) = command.split_at(1);
    let first = paths.iter().find(|path| !path.is_empty()).map_or("", String::as_str);
    let started = Command::new(&program[0])
        .args(args)
        .env("DMS_MOUNT_PATH", first)
        .env("DMS_MOUNT_PATHS", paths.join("\n"))
        .env(life::VARIABLE, life.path())
        .env_remove(life::ONE_AT_A_TIME)
        .env_remove("KEYSTONE_TOKEN")
        .spawn();
    started.map_err(|why| {
        let exit = match why.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::CannotRun,
        };
        Failure::new(exit, format!("unable to run {}: {why}", program[0].display()))
    })
}

/// Says when it stops and when it has ended. It is reaped by whoever sends it signals: nobody else
/// gets its number before.
fn watch(pid: Pid, to: &Sender<Event>) {
    let stopped = WaitPidFlag::WSTOPPED;
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | stopped | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Stopped(..)) => {
                thread::sleep(SETTLE);
                let still = waitid(Id::Pid(pid), stopped | WaitPidFlag::WNOHANG);
                if matches!(still, Ok(WaitStatus::Stopped(..))) {
                    let _ = to.send(Event::Stopped);
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => {
                let _ = to.send(Event::Ended);
                return;
            }
        }
    }
}

/// What the terminal sends, it sends to the command too; and whoever is the sender needs no copy.
fn pass_on(pid: Pid, received: &Received, started: Instant) {
    let has_it = match received.sender {
        None => received.at >= started,
        Some(sender) => sender == pid.as_raw(),
    };
    if !has_it {
        // It may have ended, but its number is still its own.
        let _ = kill(pid, received.signal);
    }
}

/// The shell waits for us, and has to see that the job has stopped. Where no shell does, nobody
/// would continue us.
fn stop_too() {
    let is_in_front =
        File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(&tty).is_ok_and(|it| it == getpgrp()));
    if is_in_front {
        let _ = raise(Signal::SIGTSTP);
    }
}

fn reap(child: &mut Child) -> Result<End, Failure> {
    let status = child.wait().context("unable to wait for", "the command")?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(Exit::Code(u8::try_from(code).unwrap_or(u8::MAX))),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    })
}
