//! One mount, or one unmount, until it is known how it went: tried again, or undone.

use std::process;
use std::time::{Duration, Instant, SystemTime};

use dms_cli::random_id;
use dms_wire::{Action, ErrorCode, Owner, Response};
use nix::sys::signal::Signal;

use crate::ask::Asked;
use crate::events::Received;
use crate::patience::{Patience, is_temporary, is_unknown};
use crate::wanted::Wanted;
use crate::with::With;

/// Why nothing is mounted for a request.
pub(crate) enum Refused {
    /// This is the last answer.
    Failed(Box<Response>),
    /// We were told to end.
    Interrupted(Signal),
}

/// What is left of a mount.
pub(crate) enum Left {
    Unmounted,
    /// The job did not use the target any more, or does so by another run.
    WasGone,
    /// This is the last answer.
    Mounted(Box<Response>),
}

impl With<'_> {
    /// Mounts; returns where. After an unknown outcome it is the same request that is sent again,
    /// and if there is no certainty in the end, an unmount.
    pub(crate) fn mount(&self, wanted: &Wanted, owner: &Owner) -> Result<String, Refused> {
        let mut id = wanted.id.clone().unwrap_or_else(new_id);
        let mut patience = Patience::new(self.asker.bound);
        loop {
            let line = |until| wanted.mount_line(&id, owner, until);
            let Asked { answer, is_answered, mut signal } =
                self.asker.ask(&self.events, Action::Mount, wanted, line);
            let path = answer.mount_path.clone().or_else(|| wanted.path.clone());
            let (is_done, mut pause) = (!answer.is_error(), None);
            match path {
                Some(path) if is_done && signal.is_none() => return Ok(path),
                _ => {}
            }
            let is_unknown = is_done || !is_answered || is_unknown(&answer);
            if signal.is_none() && !is_done && is_temporary(Action::Mount, &answer) {
                pause = patience.pause();
            }
            if let Some(pause) = pause {
                signal = self.pause("mount", wanted, &answer, pause);
            }
            if pause.is_none() || signal.is_some() {
                if is_unknown {
                    self.undo(wanted, owner);
                }
                return Err(match signal {
                    Some(received) => Refused::Interrupted(received.signal),
                    None => Refused::Failed(Box::new(without_path(answer))),
                });
            }
            if !is_unknown {
                // The answer to the other one is on record.
                id = new_id();
            }
        }
    }

    /// Unmounts. A signal does not end that, but nothing is tried again after it.
    pub(crate) fn unmount(&self, wanted: &Wanted, owner: &Owner) -> Left {
        let mut id = new_id();
        let mut patience = Patience::new(self.asker.bound);
        loop {
            let line = |until| wanted.unmount_line(&id, owner, until);
            let Asked { answer, is_answered, mut signal } =
                self.asker.ask(&self.events, Action::Unmount, wanted, line);
            if !answer.is_error() {
                return Left::Unmounted;
            }
            if answer.error_code == Some(ErrorCode::NoActiveMount) {
                return Left::WasGone;
            }
            let mut pause = None;
            if signal.is_none() && is_temporary(Action::Unmount, &answer) {
                pause = patience.pause();
            }
            if let Some(pause) = pause {
                signal = self.pause("unmount", wanted, &answer, pause);
            }
            if pause.is_none() || signal.is_some() {
                return Left::Mounted(Box::new(answer));
            }
            if is_answered && !is_unknown(&answer) {
                id = new_id();
            }
        }
    }

    /// A mount that may have happened.
    fn undo(&self, wanted: &Wanted, owner: &Owner) {
        if let Left::Mounted(answer) = self.unmount(wanted, owner) {
            let why = answer.error_msg.as_deref().unwrap_or_default();
            log::error!("{} may be mounted, and cannot be unmounted: {why}", wanted.name());
        }
    }

    /// Waits before the next attempt; returns the signal that ended that.
    fn pause(
        &self,
        verb: &str,
        wanted: &Wanted,
        answer: &Response,
        pause: Duration,
    ) -> Option<Received> {
        let why = answer.error_msg.as_deref().unwrap_or_default();
        let name = wanted.name();
        log::warn!("unable to {verb} {name}: {why}; next attempt in {:.1} s", pause.as_secs_f64());
        let begun = Instant::now();
        while let Some(left) = pause.checked_sub(begun.elapsed()) {
            let text = format!("waiting to {verb} {} again", wanted.target);
            self.asker.screen.show(&text, begun.elapsed());
            let signal = self.events.signal(left.min(Duration::from_secs(1)));
            if signal.is_some() {
                self.asker.screen.clear();
                return signal;
            }
        }
        self.asker.screen.clear();
        None
    }
}

/// A success that does not say where is of no use to anybody.
fn without_path(answer: Response) -> Response {
    if answer.is_error() {
        return answer;
    }
    let text = "it was mounted, but the answer does not say where";
    Response::error(ErrorCode::Validation, text)
}

fn new_id() -> String {
    random_id().unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("dms-with-{}-{}", process::id(), now.as_nanos())
    })
}
