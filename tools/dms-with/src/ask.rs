//! One request, one answer: a pipeline is started, asked, and ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dms_cli::Settings;
use dms_wire::{Action, Deadline, ErrorCode, Response};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::events::{Event, Events, Received};
use crate::holder;
use crate::pipeline::{Pipeline, Voice};
use crate::screen::Screen;
use crate::wanted::Wanted;

/// How long past its deadline an answer is waited for: the pipeline minds it by itself.
const GRACE: Duration = Duration::from_secs(60);

/// How soon what is being waited for is shown, and how often from then on.
const SHOW: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_secs(1);

/// Asks pipelines.
pub(crate) struct Asker {
    pipeline: Pipeline,
    pub(crate) screen: Arc<Screen>,
    lock_dir: PathBuf,
    node: String,
    /// How long one request may take.
    pub(crate) bound: Duration,
}

/// What came of a request.
pub(crate) struct Asked {
    pub(crate) answer: Response,
    /// Whether it is an answer, and not only what can be said where there is none.
    pub(crate) is_answered: bool,
    /// The signal that came meanwhile.
    pub(crate) signal: Option<Received>,
}

impl Asker {
    pub(crate) fn new(pipeline: Pipeline, settings: &Settings) -> Asker {
        Asker {
            pipeline,
            screen: Arc::new(Screen::new()),
            lock_dir: settings.lock_dir.clone(),
            node: settings.node_id.clone(),
            bound: settings.request_timeout,
        }
    }

    /// Sends a line and waits for the answer. A signal ends the wait for a mount, which is undone
    /// then; an unmount is not given up.
    pub(crate) fn ask(
        &self,
        events: &Events,
        action: Action,
        wanted: &Wanted,
        line: impl FnOnce(Deadline) -> Vec<u8>,
    ) -> Asked {
        let voice = if self.screen.is_terminal() { Voice::Terminal } else { Voice::Ours };
        let (running, said) = match self.pipeline.start(&voice) {
            Ok(started) => started,
            Err(why) => {
                let answer = Response::error(ErrorCode::Internal, why.to_string());
                return Asked { answer, is_answered: false, signal: None };
            }
        };
        let leader = running.leader();
        let (done, all_said) = mpsc::channel::<()>();
        if let Some(said) = said {
            let screen = Arc::clone(&self.screen);
            thread::spawn(move || {
                screen.relay(said);
                drop(done);
            });
        }
        let (line, to, patience) =
            (line(Deadline::after(self.bound)), events.sender(), self.bound + GRACE);
        thread::spawn(move || {
            let (answer, is_answered) = running.ask(&line, patience);
            let _ = to.send(Event::Answer(answer, is_answered));
        });
        let asked = self.wait(events, action, wanted, leader);
        // Its last words come before ours; whoever it has left behind may keep them open.
        let _ = all_said.recv_timeout(Duration::from_millis(200));
        self.screen.clear();
        asked
    }

    fn wait(&self, events: &Events, action: Action, wanted: &Wanted, leader: u32) -> Asked {
        let begun = Instant::now();
        let mut signal = None;
        let mut pause = SHOW;
        loop {
            match events.next(pause) {
                Some(Event::Answer(answer, is_answered)) => {
                    return Asked { answer, is_answered, signal };
                }
                Some(Event::Signal(received)) => {
                    if action == Action::Mount && signal.is_none() {
                        // What it has begun it may finish; nobody waits for that.
                        end_group(leader);
                    }
                    signal.get_or_insert(received);
                }
                Some(Event::Stopped | Event::Ended) => {}
                None => {
                    let text = self.what(action, wanted, leader);
                    self.screen.show(&text, begun.elapsed());
                    pause = TICK;
                }
            }
        }
    }

    /// What is being waited for, in words.
    fn what(&self, action: Action, wanted: &Wanted, group: u32) -> String {
        let Wanted { target, host, .. } = wanted;
        let doing = match action {
            Action::Mount => "mounting",
            Action::Unmount | Action::Settle => "unmounting",
        };
        if host.as_str() != self.node {
            return format!("{doing} {target}: waiting for {host}");
        }
        let lock = self.lock_dir.join(format!("target.{target}.lock"));
        match holder::of_others(&lock, group) {
            Some(holder) => format!("{doing} {target}: waiting for its lock, held by {holder}"),
            None => format!("{doing} {target}"),
        }
    }
}

fn end_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader) {
        // It may have ended by now.
        let _ = killpg(Pid::from_raw(leader), Signal::SIGTERM);
    }
}
