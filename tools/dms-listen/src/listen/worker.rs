//! A filter, and the thread that waits for it.

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use dms_filter::{Filter, Lost};
use dms_wire::{Deadline, ErrorCode, MAX_LINE, Response};

use crate::listen::Event;
use crate::listen::desk::Desk;
use crate::listen::schedule::Ticket;

/// How long past its deadline a request's answer is waited for: the filter minds it by itself.
const GRACE: Duration = Duration::from_secs(2);

/// How long a filter may take to end when it is not needed any more.
const FINISH: Duration = Duration::from_secs(30);

/// Which filter each worker runs, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct FilterSpec {
    pub(crate) command: Vec<OsString>,
    /// How long a filter is kept without work.
    pub(crate) idle: Duration,
}

/// A thread with a filter of its own, which it starts when it first needs it.
pub(crate) struct Worker {
    orders: Sender<Order>,
}

enum Order {
    Work {
        ticket: Ticket,
        line: Vec<u8>,
        until: Deadline,
    },
    /// End the filter, and say so.
    Retire,
}

impl Worker {
    /// Starts the thread. It brings its answers to the desk, with its number; its end is an event.
    pub(crate) fn start(
        number: usize,
        spec: FilterSpec,
        desk: Desk,
        events: Sender<Event>,
    ) -> io::Result<Worker> {
        let (orders, received) = unbounded();
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let mut filter: Option<Filter> = None;
            // Filters that are taking their time to end; the next request is not to wait for them.
            let mut leaving = Vec::new();
            loop {
                let order = match &filter {
                    // A thread that has nothing running has nothing to wake up for.
                    None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(_) => received.recv_timeout(spec.idle),
                };
                match order {
                    Ok(Order::Work { ticket, line, until }) => {
                        let answer = spec.work(&mut filter, &line, until);
                        desk.lock().answer(number, ticket, answer);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        let idle = filter.take();
                        leaving.retain(|thread: &JoinHandle<()>| !thread.is_finished());
                        leaving.push(std::thread::spawn(|| finish(idle)));
                    }
                    Err(RecvTimeoutError::Disconnected) | Ok(Order::Retire) => {
                        finish(filter.take());
                        leaving.into_iter().for_each(|thread| drop(thread.join()));
                        let _ = events.send(Event::Retired);
                        return;
                    }
                }
            }
        })?;
        Ok(Worker { orders })
    }

    /// Hands it a request. It must not have one.
    pub(crate) fn give(&self, ticket: Ticket, line: Vec<u8>, until: Deadline) {
        // The thread ends only when it is told to.
        let _ = self.orders.send(Order::Work { ticket, line, until });
    }

    /// Lets it end; [`Event::Retired`] says when.
    pub(crate) fn retire(&self) {
        let _ = self.orders.send(Order::Retire);
    }
}

impl FilterSpec {
    /// The filter's answer, or ours in its place.
    fn work(&self, current: &mut Option<Filter>, line: &[u8], until: Deadline) -> Vec<u8> {
        if until.passed() {
            let text = "timeout: the deadline passed before the request was begun";
            return Response::error(ErrorCode::Timeout, text).to_line();
        }
        let fit = current.take_if(|filter| !filter.is_spent());
        let mut filter = match fit {
            Some(filter) => filter,
            None => {
                end(current.take());
                match Filter::start(&mut self.command(), MAX_LINE) {
                    Ok(filter) => filter,
                    Err(why) => return self.cannot_start(&why).to_line(),
                }
            }
        };
        match filter.ask(line, until.left() + GRACE) {
            Ok(answer) => {
                *current = Some(filter);
                answer
            }
            Err(why) => {
                let response = explain(why);
                log::error!("{}", response.error_msg.as_deref().unwrap_or_default());
                if matches!(why, Lost::TimedOut) {
                    say(filter.kill());
                } else {
                    end(Some(filter));
                }
                response.to_line()
            }
        }
    }

    /// What is between us and the service manager or the broker is not the filter's.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "DMS_RABBITMQ_URL"] {
            command.env_remove(name);
        }
        command
    }

    fn cannot_start(&self, why: &io::Error) -> Response {
        let program = self.command[0].display();
        let text = dms_cli::plain(&format!("unable to run {program}: {why}"));
        log::error!("{text}");
        Response::error(ErrorCode::Internal, text)
    }
}

fn explain(lost: Lost) -> Response {
    let code = match lost {
        Lost::TimedOut => ErrorCode::Timeout,
        Lost::Ended | Lost::Confused => ErrorCode::Internal,
    };
    Response::error(code, format!("{lost}; the outcome is unknown"))
}

fn end(filter: Option<Filter>) {
    if let Some(filter) = filter {
        say(filter.end());
    }
}

fn finish(filter: Option<Filter>) {
    if let Some(filter) = filter {
        say(filter.finish(FINISH));
    }
}

/// How it ended is worth a word only if it did not.
fn say(end: io::Result<Option<std::process::ExitStatus>>) {
    match end {
        Ok(Some(status)) => log::debug!("the filter ended ({status})"),
        Ok(None) => log::error!("the filter does not end: it hangs in the kernel"),
        Err(why) => log::error!("unable to wait for the filter: {why}"),
    }
}
