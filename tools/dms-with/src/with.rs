//! The whole of it: mount in order, run, unmount in reverse.

use std::ffi::OsString;

use dms_cli::{Context, Exit, Failure, boot_id, node_name};
use dms_flock::life::Life;
use dms_wire::{Action, Owner};
use nix::sys::signal::Signal;

use crate::ask::Asker;
use crate::cli::Rules;
use crate::command;
use crate::end::End;
use crate::events::Events;
use crate::patience::is_temporary;
use crate::settle::{Left, Refused};
use crate::wanted::Wanted;

/// One run.
pub(crate) struct With<'a> {
    pub(crate) rules: Rules,
    pub(crate) life: &'a Life,
    pub(crate) asker: Asker,
    pub(crate) events: Events,
}

impl With<'_> {
    /// Mounts, runs the command, and unmounts, however that ends.
    pub(crate) fn run(&self, wanted: &[Wanted], command: &[OsString]) -> Result<End, Failure> {
        let boot = boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?;
        let life = self.life.path().display().to_string();
        let owner = Owner { host: node_name(), boot, life };
        // A path for each request; an empty one is of a request that failed.
        let mut paths: Vec<String> = Vec::new();
        // From here to the last unmount nothing may return.
        let ended = match self.mount_all(wanted, &owner, &mut paths) {
            Ok(()) => command::run(command, &paths, self.life, &self.events),
            Err(ended) => ended,
        };
        let failed = self.unmount_all(wanted, &owner, &paths);
        match (ended?, failed) {
            (End::Exit(Exit::Code(0)), Some(exit)) if self.rules.strict => Ok(End::Exit(exit)),
            (end, _) => Ok(end),
        }
    }

    /// In order. The error is how all of it ends, without the command.
    fn mount_all(
        &self,
        wanted: &[Wanted],
        owner: &Owner,
        paths: &mut Vec<String>,
    ) -> Result<(), Result<End, Failure>> {
        let mut failed = None;
        for wanted in wanted {
            let failure = match self.mount(wanted, owner) {
                Ok(path) => {
                    paths.push(path);
                    continue;
                }
                Err(Refused::Interrupted(signal)) => return Err(Ok(End::Signal(signal as i32))),
                Err(Refused::Failed(answer)) => {
                    let is_temporary = is_temporary(Action::Mount, &answer);
                    let exit = if is_temporary { Exit::Temporary } else { Exit::No };
                    let why = answer.error_msg.unwrap_or_default();
                    Failure::new(exit, format!("unable to mount {}: {why}", wanted.name()))
                }
            };
            if !self.rules.keep_going {
                return Err(Err(failure));
            }
            log::error!("{failure}");
            paths.push(String::new());
            failed.get_or_insert(failure);
        }
        match failed {
            Some(failure) if paths.iter().all(String::is_empty) => Err(Err(failure)),
            _ => self.told_to_end().map_or(Ok(()), |signal| Err(Ok(End::Signal(signal as i32)))),
        }
    }

    /// A signal that nobody has heeded yet.
    fn told_to_end(&self) -> Option<Signal> {
        self.events.pending_signal().map(|received| received.signal)
    }

    /// In reverse. If something is left mounted: the exit code of the first.
    fn unmount_all(&self, wanted: &[Wanted], owner: &Owner, paths: &[String]) -> Option<Exit> {
        let mut failed = None;
        for (wanted, path) in wanted.iter().zip(paths).rev().filter(|(_, path)| !path.is_empty()) {
            match self.unmount(wanted, owner) {
                Left::Unmounted => {}
                Left::WasGone => {
                    log::warn!("{} was let go meanwhile: nothing to unmount", wanted.name());
                }
                Left::Mounted(answer) => {
                    let why = answer.error_msg.as_deref().unwrap_or_default();
                    log::error!("unable to unmount {} from {path}: {why}", wanted.name());
                    let is_temporary = is_temporary(Action::Unmount, &answer);
                    failed.get_or_insert(if is_temporary { Exit::Temporary } else { Exit::No });
                }
            }
        }
        failed
    }
}
