//! The thread that speaks to the broker: it brings messages and takes answers back, and connects
//! again, for ever, whatever happens to the connection.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::amqp::QueueName;
use crate::amqp::backoff::Backoff;
use crate::amqp::broker::Broker;
use crate::amqp::link::{Link, is_vague, reason};
use crate::listen::Event;
use crate::listen::desk::Desk;
use crate::listen::message::{Address, Delivery};
use crate::listen::session;

/// How long a connection has to last to count as a good one.
const STEADY: Duration = Duration::from_secs(10);

/// What the courier is to do.
pub(crate) enum Order {
    /// Acknowledge a message, after the answer to it has been sent if there is one.
    Finish { delivery: Delivery, reply: Option<(Address, Vec<u8>)> },
    /// Give a message back to the broker.
    HandBack(Delivery),
    /// Take no more messages.
    Drain,
    /// Close the connection and end.
    Close,
}

/// The courier's own.
pub(crate) struct Courier {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) queue: QueueName,
    /// How many messages the broker may let us have at once.
    pub(crate) prefetch: u16,
    pub(crate) orders: Receiver<Order>,
    /// Where the messages go.
    pub(crate) desk: Desk,
    pub(crate) events: Sender<Event>,
    /// It takes no more messages: once the connection is lost, nothing is left to do.
    pub(crate) draining: Cell<bool>,
}

impl Courier {
    /// Goes on until it is told to close; [`Event::Closed`] says that it is.
    pub(crate) fn run(self) {
        let mut backoff = Backoff::new(self.brokers[0].retry_delay);
        for (connection, broker) in (1..).zip(self.brokers.iter().cycle()) {
            match self.serve(broker, connection, &mut backoff) {
                Ok(()) => break,
                Err(why) => self.tell(Event::Lost(why)),
            }
            if self.draining.get() || self.is_over_within(backoff.wait()) {
                break;
            }
        }
        self.tell(Event::Closed);
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listens any more only when the process ends.
        let _ = self.events.send(event);
    }

    /// Waits before the next attempt, unless it is told that there is to be none.
    fn is_over_within(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            match self.orders.recv_deadline(end) {
                Ok(Order::Close | Order::Drain) | Err(RecvTimeoutError::Disconnected) => {
                    return true;
                }
                // All others are of a connection that is gone.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// One connection, from its beginning until it is lost, or closed as we were told.
    fn serve(&self, broker: &Broker, connection: u64, backoff: &mut Backoff) -> Result<(), String> {
        let link = Link::open(broker, &format!("dms-listen {}", self.queue), Duration::MAX)?;
        let mut begun = None;
        let served = link.channel(Duration::MAX).and_then(|channel| {
            session::serve(self, &link, &channel, connection, || {
                begun = Some(Instant::now());
                self.tell(Event::Connected(broker.to_string()));
            })
        });
        // What it has brought comes again on the next one: nothing of that may be taken before.
        if begun.is_some() {
            self.desk.lock().lose_connection();
        }
        // A connection that breaks as soon as it is used is not to be tried again and again.
        if begun.is_some_and(|begun| begun.elapsed() > STEADY) {
            backoff.reset();
        }
        let closed = link.close();
        let why = match (served, closed) {
            (Ok(()), Ok(())) => return Ok(()),
            (Ok(()), Err(why)) => {
                log::warn!("the connection to {broker} did not end well: {why}");
                return Ok(());
            }
            // What ended the connection says more than what was noticed of it.
            (Err(why), Err(cause)) if is_vague(&why) => cause,
            (Err(why), _) => reason(&why),
        };
        Err(format!("unable to serve {} on {broker}: {why}", self.queue))
    }
}
