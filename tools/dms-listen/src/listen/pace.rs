//! The listener's day: from event to event, and how it ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::amqp::QueueName;
use crate::listen::Event;
use crate::listen::desk::Desk;
use crate::listen::notify::Manager;

/// How long the courier may take to close the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often requests that wait are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often the service manager is told of numbers that change.
const REPORT: Duration = Duration::from_secs(5);

/// What is to be done when, and what was last said.
struct Day<'a> {
    manager: &'a Manager,
    queue: &'a QueueName,
    /// The broker that we serve the queue on, or why we do not.
    state: Result<String, String>,
    blocked: Option<String>,
    /// What was logged since the last connection.
    told: HashSet<String>,
    connection: u64,
    is_ready: bool,
    said: String,
    report: Instant,
    looked: Instant,
    beat: Option<Instant>,
}

/// Goes on until it is told to stop, and then until all that runs has ended, or `grace` is over.
pub(crate) fn run(
    mut desk: Desk,
    events: &Receiver<Event>,
    manager: &Manager,
    queue: &QueueName,
    grace: Duration,
) {
    let mut day = Day::begin(manager, queue);
    loop {
        match next(events, day.wake(&desk)) {
            Some(Event::Stop) => break,
            Some(event) => day.handle(event, &mut desk),
            None => {}
        }
        day.routine(&mut desk);
    }
    log::info!("stopping: {} running, {} waiting", desk.running(), desk.waiting());
    manager.tell("STOPPING=1");
    day.end(desk, events, Instant::now() + grace);
}

/// The next event, unless nothing happens until then.
fn next(events: &Receiver<Event>, until: Option<Instant>) -> Option<Event> {
    let event = match until {
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(until) => events.recv_deadline(until),
    };
    // We hold a sender ourselves, so the channel is never closed.
    event.ok()
}

impl<'a> Day<'a> {
    fn begin(manager: &'a Manager, queue: &'a QueueName) -> Day<'a> {
        let now = Instant::now();
        Day {
            manager,
            queue,
            state: Err("connecting".to_owned()),
            blocked: None,
            told: HashSet::new(),
            connection: 0,
            is_ready: false,
            said: String::new(),
            report: now,
            looked: now,
            beat: manager.watchdog.map(|_| now),
        }
    }

    /// When there is something to do without an event. `None`: an idle listener sleeps.
    fn wake(&self, desk: &Desk) -> Option<Instant> {
        let look = (desk.waiting() > 0).then_some(self.looked + LOOK);
        let is_news = self.manager.is_there() && self.status(desk) != self.said;
        let report = is_news.then_some(self.report);
        [look, report, self.beat].into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event, desk: &mut Desk) {
        match event {
            Event::Arrived(message) => desk.take(message),
            Event::Answered { worker, ticket, answer } => desk.answer(worker, ticket, answer),
            Event::Connected { connection, broker } => {
                log::info!("serving {} on {broker}", self.queue);
                self.connection = connection;
                self.told.clear();
                self.change(Ok(broker));
            }
            Event::Lost { connection, why } => {
                // Every attempt fails alike while a broker is down: once is enough.
                if self.told.insert(why.clone()) {
                    log::warn!("{why}");
                }
                if connection == self.connection {
                    desk.lose_connection();
                }
                self.change(Err(why));
            }
            Event::Blocked(why) => {
                match &why {
                    Some(why) => log::warn!("the broker takes no messages: {why}"),
                    None => log::info!("the broker takes messages again"),
                }
                self.blocked = why;
                self.report = Instant::now();
            }
            Event::Retired | Event::Closed | Event::Stop => {}
        }
    }

    /// The service manager is told at once. It waits for the first connection; but a broker that
    /// is down must not keep a node from booting.
    fn change(&mut self, state: Result<String, String>) {
        self.state = state;
        self.blocked = None;
        self.report = Instant::now();
        if !self.is_ready {
            self.is_ready = true;
            self.manager.tell("READY=1");
        }
    }

    fn status(&self, desk: &Desk) -> String {
        let numbers = format!(
            "{} running, {} waiting, {} answered",
            desk.running(),
            desk.waiting(),
            desk.count
        );
        match (&self.state, &self.blocked) {
            (Ok(broker), Some(why)) => format!("{broker} takes no answers ({why}); {numbers}"),
            (Ok(broker), None) => format!("serving {} on {broker}; {numbers}", self.queue),
            (Err(why), _) => format!("{why}; {numbers}"),
        }
    }

    fn routine(&mut self, desk: &mut Desk) {
        let now = Instant::now();
        if now >= self.looked + LOOK {
            self.looked = now;
            desk.expire();
        }
        if let (Some(beat), Some(every)) = (self.beat, self.manager.watchdog)
            && now >= beat
        {
            self.manager.tell("WATCHDOG=1");
            self.beat = Some(now + every);
        }
        if now >= self.report && self.manager.is_there() {
            let status = self.status(desk);
            if status != self.said {
                self.manager.tell(&format!("STATUS={status}"));
                self.said = status;
                self.report = now + REPORT;
            }
        }
    }

    /// Takes no more, and ends what there is.
    fn end(&mut self, mut desk: Desk, events: &Receiver<Event>, until: Instant) {
        desk.hand_back();
        while desk.running() > 0 && Instant::now() < until {
            let wake = self.beat.map_or(until, |beat| beat.min(until));
            self.routine(&mut desk);
            match next(events, Some(wake)) {
                Some(Event::Stop) => return log::warn!("stopping at once"),
                Some(Event::Arrived(message)) => desk.decline(&message),
                None => {}
                Some(event) => self.handle(event, &mut desk),
            }
        }
        if desk.running() > 0 {
            log::warn!("{} requests still run: the next listener gets them", desk.running());
        }
        desk.close();
        let filters = if desk.running() > 0 { 0 } else { desk.dismiss() };
        self.await_the_end(filters, events, until);
    }

    /// Waits for the courier, if it has a connection to close, and for the filters.
    fn await_the_end(&self, mut filters: usize, events: &Receiver<Event>, until: Instant) {
        let mut is_open = self.state.is_ok();
        let farewell = Instant::now() + FAREWELL;
        while filters > 0 || is_open {
            let until = if is_open { farewell } else { until.max(farewell) };
            match next(events, Some(until)) {
                Some(Event::Retired) => filters -= 1,
                Some(Event::Closed) => is_open = false,
                Some(Event::Stop) => return,
                Some(_) => {}
                None if is_open => is_open = false,
                None => return,
            }
        }
    }
}
