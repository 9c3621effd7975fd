//! What there is to wait for, in one queue: signals, the answer of a pipeline, the command.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use dms_cli::{Context, Failure};
use dms_wire::Response;
use nix::sys::signal::Signal;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// Those that end a process that does not mind them, and are sent by people and supervisors.
const MINDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// A signal that we got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// The process that sent it; `None`: the terminal, which sends it to the whole group.
    pub(crate) sender: Option<i32>,
    pub(crate) at: Instant,
}

pub(crate) enum Event {
    Signal(Received),
    /// What a pipeline has answered, and whether it has.
    Answer(Response, bool),
    /// The command has been stopped.
    Stopped,
    /// The command has ended, and is to be reaped.
    Ended,
}

/// The queue.
pub(crate) struct Events {
    queue: Receiver<Event>,
    sender: Sender<Event>,
}

impl Events {
    /// From here on no signal ends this process: somebody has to unmount.
    pub(crate) fn start() -> Result<Events, Failure> {
        let (sender, queue) = mpsc::channel();
        let ignored = ignored();
        // What our caller does not want to have heeded (nohup) we do not heed, nor does the command.
        let minded = MINDED.iter().filter(|signal| !ignored.contains(signal));
        let minded: Vec<i32> = minded.map(|&signal| signal as i32).collect();
        let mut signals =
            SignalsInfo::<WithOrigin>::new(minded).context("unable to catch", "signals")?;
        let to = sender.clone();
        thread::spawn(move || {
            for origin in &mut signals {
                let Some(received) = Received::from(&origin) else { continue };
                if to.send(Event::Signal(received)).is_err() {
                    return;
                }
            }
        });
        Ok(Events { queue, sender })
    }

    /// For those who have something to say.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event; `None`: there was none for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Event> {
        // It does not end: we have a sender ourselves.
        self.queue.recv_timeout(patience).ok()
    }

    /// A signal that has come, and nobody has heeded.
    pub(crate) fn pending_signal(&self) -> Option<Received> {
        self.signal(Duration::ZERO)
    }

    /// A signal that comes within this time.
    pub(crate) fn signal(&self, patience: Duration) -> Option<Received> {
        let end = Instant::now() + patience;
        loop {
            match self.next(end.saturating_duration_since(Instant::now()))? {
                Event::Signal(received) => return Some(received),
                // Of something that was given up.
                Event::Answer(..) | Event::Stopped | Event::Ended => {}
            }
        }
    }
}

impl Received {
    fn from(origin: &Origin) -> Option<Received> {
        let sender = match origin.cause {
            Cause::Kernel => None,
            _ => Some(origin.process.map_or(0, |process| process.pid)),
        };
        let signal = Signal::try_from(origin.signal).ok()?;
        Some(Received { signal, sender, at: Instant::now() })
    }
}

/// The signals that this process was started to ignore.
fn ignored() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    MINDED.into_iter().filter(|&signal| mask >> (signal as i32 - 1) & 1 == 1).collect()
}
