//! The listener: messages of a queue, handed to filters.
//!
//! Two kinds of threads serve the one that decides ([`requests`]): the [`courier`] speaks to the
//! broker, and each [`worker`] to a filter of its own. They tell it what happens ([`Event`]), so
//! that nothing that hangs, broker or filter, keeps it from its work.

mod answered;
mod cli;
mod courier;
mod message;
mod notify;
mod requests;
mod schedule;
mod serve;
mod session;
mod worker;

use std::cell::Cell;

use crossbeam_channel::{Sender, unbounded};
use dms_cli::{Config, Context, Exit, Failure, Files, Settings};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::listen::cli::Cli;
use crate::listen::courier::Courier;
use crate::listen::message::Message;
use crate::listen::notify::Reporter;
use crate::listen::requests::Requests;
use crate::listen::schedule::Ticket;

/// How many messages the broker may let us have. Requests for a target that hangs wait here; they
/// must not keep the others from coming in.
const PREFETCH: u16 = 1024;

/// What happens.
pub(crate) enum Event {
    /// A message has come.
    Arrived(Message),
    /// A worker has an answer, and is free again.
    Answered { worker: usize, ticket: Ticket, answer: Vec<u8> },
    /// A worker has ended.
    Retired,
    /// The queue is being served.
    Connected { connection: u64, broker: String },
    /// It is not, and why.
    Lost { connection: u64, why: String },
    /// The broker takes no messages, and why; or it does again.
    Blocked(Option<String>),
    /// The courier has ended.
    Closed,
    /// We are to end.
    Stop,
}

/// dms-listen.
///
/// # Errors
/// Usage, configuration, and what the system refuses at the start.
pub fn run() -> Result<Exit, Failure> {
    let cli: Option<Cli> = dms_cli::parse()?;
    let config = Config::read(Files::Node)?;
    let settings = Settings::read(&config)?;
    let Some(cli) = cli else { return config.print() };
    let plan = cli.plan(settings)?;
    let (tell, events) = unbounded();
    let (orders, received) = unbounded();
    watch_signals(tell.clone())?;
    let prefetch = PREFETCH.max(u16::try_from(plan.jobs.saturating_mul(4)).unwrap_or(u16::MAX));
    let courier = Courier {
        brokers: plan.brokers,
        queue: plan.queue.clone(),
        prefetch,
        orders: received,
        events: tell.clone(),
        draining: Cell::new(false),
    };
    let thread = std::thread::Builder::new().name("courier".into());
    thread.spawn(move || courier.run()).context("unable to start", "a thread")?;
    let requests = Requests::new(plan.rules, plan.filter, plan.jobs, prefetch, tell, orders);
    serve::run(requests, &events, Reporter::from_env(), plan.queue, plan.grace);
    Ok(Exit::Done)
}

fn watch_signals(tell: Sender<Event>) -> Result<(), Failure> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]);
    let mut signals = signals.context("unable to wait for", "signals")?;
    let thread = std::thread::Builder::new().name("signals".into());
    let watch = move || signals.forever().try_for_each(|_| tell.send(Event::Stop));
    thread.spawn(watch).context("unable to start", "a thread")?;
    Ok(())
}
