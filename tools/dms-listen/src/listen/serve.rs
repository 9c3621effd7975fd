//! Who watches over the requests: what they wait for must not take too long, the service manager wants to
//! be told, and all of it has to end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::amqp::QueueName;
use crate::listen::Event;
use crate::listen::desk::Desk;
use crate::listen::notify::Reporter;

/// How long the courier may take to close the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often requests are looked at while they wait, or something happens to them.
const LOOK: Duration = Duration::from_millis(500);

/// The requests, and the connection that they come by.
struct Service {
    desk: Desk,
    reporter: Reporter,
    queue: QueueName,
    /// The broker that we serve the queue on, or why we do not.
    state: Result<String, String>,
    blocked: Option<String>,
    /// What was logged since the last connection.
    told: HashSet<String>,
    /// When the requests were last looked at.
    looked: Instant,
}

/// Goes on until it is told to stop, and then until all that runs has ended, or `grace` is over.
pub(crate) fn run(
    desk: Desk,
    events: &Receiver<Event>,
    reporter: Reporter,
    queue: QueueName,
    grace: Duration,
) {
    let mut service = Service {
        desk,
        reporter,
        queue,
        state: Err("connecting".to_owned()),
        blocked: None,
        told: HashSet::new(),
        looked: Instant::now(),
    };
    loop {
        match next(events, service.wake()) {
            Some(Event::Stop) => break,
            Some(event) => service.handle(event),
            None => {}
        }
        service.routine();
    }
    service.end(events, Instant::now() + grace);
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

impl Service {
    /// When there is something to do without an event. `None`: an idle listener sleeps.
    fn wake(&self) -> Option<Instant> {
        let requests = self.desk.lock();
        let is_busy = requests.waiting() > 0 || requests.watch.is_awake();
        drop(requests);
        let look = is_busy.then_some(self.looked + LOOK);
        let report = self.reporter.wake(|| self.status());
        [look, report].into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected(broker) => {
                log::info!("serving {} on {broker}", self.queue);
                self.told.clear();
                self.change(Ok(broker));
            }
            Event::Lost(why) => {
                // Every attempt fails alike while a broker is down: once is enough.
                if self.told.insert(why.clone()) {
                    log::warn!("{why}");
                }
                self.change(Err(why));
            }
            Event::Blocked(why) => {
                match &why {
                    Some(why) => log::warn!("the broker takes no messages: {why}"),
                    None => log::info!("the broker takes messages again"),
                }
                self.blocked = why;
                self.reporter.hurry();
            }
            Event::Changed | Event::Retired | Event::Closed | Event::Stop => {}
        }
    }

    /// The service manager is told at once. It waits for the first connection; but a broker that
    /// is down must not keep a node from booting.
    fn change(&mut self, state: Result<String, String>) {
        self.state = state;
        self.blocked = None;
        self.reporter.hurry();
        self.reporter.ready();
    }

    fn status(&self) -> String {
        let requests = self.desk.lock();
        let (running, waiting) = (requests.running(), requests.waiting());
        let numbers = format!("{running} running, {waiting} waiting, {} answered", requests.count);
        drop(requests);
        let queue = &self.queue;
        match (&self.state, &self.blocked) {
            (Ok(broker), Some(why)) => format!("{broker} takes no answers ({why}); {numbers}"),
            (Ok(broker), None) => format!("serving {queue} on {broker}; {numbers}"),
            (Err(why), _) => format!("{why}; {numbers}"),
        }
    }

    /// What is to be done whatever happens.
    fn routine(&mut self) {
        let now = Instant::now();
        if now >= self.looked + LOOK {
            self.looked = now;
            let mut requests = self.desk.lock();
            requests.expire();
            requests.watch.rest();
        }
        self.reporter.alive();
        if self.reporter.is_due() {
            self.reporter.report(self.status());
        }
    }

    /// Takes no more, and ends what there is.
    fn end(mut self, events: &Receiver<Event>, until: Instant) {
        let mut requests = self.desk.lock();
        log::info!("stopping: {} running, {} waiting", requests.running(), requests.waiting());
        requests.hand_back();
        drop(requests);
        self.reporter.stopping();
        while self.desk.lock().running() > 0 && Instant::now() < until {
            let wake = self.reporter.beat().map_or(until, |beat| beat.min(until));
            self.routine();
            match next(events, Some(wake)) {
                Some(Event::Stop) => return log::warn!("stopping at once"),
                None => {}
                Some(event) => self.handle(event),
            }
        }
        let requests = self.desk.lock();
        let left = requests.running();
        if left > 0 {
            log::warn!("{left} requests still run: the next listener gets them");
        }
        requests.close();
        let filters = if left > 0 { 0 } else { requests.dismiss() };
        drop(requests);
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
