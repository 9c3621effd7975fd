//! The listener: messages of a queue, handed to filters.
//!
//! What becomes of each is decided in one place ([`requests`]), by the thread that has something to tell:
//! the [`courier`], which speaks to the broker, and each [`worker`], which speaks to a filter of its own.
//! They meet at the [`desk`] for no longer than that takes, so that nothing that hangs, broker or filter,
//! keeps the others from their work. Who watches over it all ([`serve`]) hears of it by [`Event`].

mod answered;
mod cli;
mod courier;
mod desk;
mod message;
mod notify;
mod requests;
mod schedule;
mod serve;
mod session;
mod watch;
mod worker;

use std::cell::Cell;

use crossbeam_channel::{Sender, unbounded};
use dms_cli::{Config, Context, Exit, Failure, Files, Settings};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::listen::cli::Cli;
use crate::listen::courier::Courier;
use crate::listen::desk::Desk;
use crate::listen::notify::Reporter;
use crate::listen::requests::Requests;
use crate::listen::watch::Watch;
use crate::listen::worker::Worker;

/// How many messages the broker may let us have. Requests for a target that hangs wait here; they
/// must not keep the others from coming in.
const PREFETCH: u16 = 1024;

/// What happens.
pub(crate) enum Event {
    /// Something has happened to the requests.
    Changed,
    /// A worker has ended.
    Retired,
    /// The queue is being served, on this broker.
    Connected(String),
    /// It is not, and why.
    Lost(String),
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
    let (filter, to_watch) = (plan.filter, tell.clone());
    let start = move |number, desk| Worker::start(number, filter.clone(), desk, to_watch.clone());
    let desk = Desk::new(start, |hire| {
        Requests::new(plan.rules, hire, plan.jobs, prefetch, orders, Watch::new(tell.clone()))
    });
    let courier = Courier {
        brokers: plan.brokers,
        queue: plan.queue.clone(),
        prefetch,
        orders: received,
        desk: desk.clone(),
        events: tell,
        draining: Cell::new(false),
    };
    let thread = std::thread::Builder::new().name("courier".into());
    thread.spawn(move || courier.run()).context("unable to start", "a thread")?;
    serve::run(desk, &events, Reporter::from_env(), plan.queue, plan.grace);
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
