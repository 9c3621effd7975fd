//! One request over an open connection, and what can come of it.

use std::cell::Cell;
use std::time::Duration;

use amiquip::{
    AmqpProperties, Channel, Confirm, ConnectionBlockedNotification, Consumer, ConsumerMessage,
    ConsumerOptions, Publish, Return,
};
use crossbeam_channel::{Receiver, at, never, select};
use dms_wire::{ErrorCode, Response};

use crate::amqp::QueueName;
use crate::amqp::link::{Link, reason};
use crate::call::line::Call;
use crate::call::serve::instant;

/// Where a listener's answers come without a queue of our own.
const REPLIES: &str = "amq.rabbitmq.reply-to";

/// `delivery_mode` of a message that is not written to disk: it may carry a token.
const NON_PERSISTENT: u8 = 1;

/// How often to look whether somebody listens now.
const LOOK: Duration = Duration::from_millis(250);

/// A connection with all that is needed to ask.
pub(crate) struct Session<'a> {
    link: &'a Link,
    channel: &'a Channel,
    /// For looking at queues: one that is not there costs the channel.
    probe: Option<Channel>,
    replies: Consumer<'a>,
    returned: Receiver<Return>,
    confirmed: Receiver<Confirm>,
    /// How many messages were published; the broker counts them too.
    published: Cell<u64>,
    waits: bool,
}

/// What came of asking.
pub(crate) enum Asked {
    /// There is an answer, and the connection is as good as before.
    Answered(Box<Response>),
    /// There is none; one that comes late must not be taken for another's.
    Spent(Box<Response>),
    /// Nothing was sent: the connection is lost, and why.
    Unsent(String),
}

impl<'a> Session<'a> {
    /// Prepares a connection.
    pub(crate) fn open(
        link: &'a Link,
        channel: &'a Channel,
        patience: Duration,
        waits: bool,
    ) -> amiquip::Result<Session<'a>> {
        let options = ConsumerOptions { no_ack: true, ..ConsumerOptions::default() };
        let replies = link.call(patience, || channel.basic_consume(REPLIES, options))?;
        link.call(patience, || channel.enable_publisher_confirms())?;
        Ok(Session {
            link,
            channel,
            probe: None,
            replies,
            returned: channel.listen_for_returns()?,
            confirmed: channel.listen_for_publisher_confirms()?,
            published: Cell::new(0),
            waits,
        })
    }

    /// Sends the request if somebody listens, and waits for the answer.
    pub(crate) fn ask(&mut self, call: &Call) -> Asked {
        match self.await_listener(call) {
            Ok(None) => {}
            Ok(Some(answer)) => return Asked::Answered(Box::new(answer)),
            Err(why) => return Asked::Unsent(reason(&why)),
        }
        match self.rehearse(call) {
            Ok(None) => {}
            Ok(Some(answer)) => return Asked::Spent(Box::new(answer)),
            Err(why) => return Asked::Unsent(reason(&why)),
        }
        match self.publish(call) {
            Ok(()) => self.await_answer(call),
            // A message of which a part was not sent is none.
            Err(why) => Asked::Unsent(reason(&why)),
        }
    }

    /// `None`: somebody listens.
    fn await_listener(&mut self, call: &Call) -> amiquip::Result<Option<Response>> {
        let mut looked = false;
        loop {
            let left = call.until.left();
            if left.is_zero() && !looked {
                return Ok(Some(call.late()));
            }
            if !left.is_zero() && listens(self.link, &mut self.probe, &call.queue, left)? {
                return Ok(None);
            }
            looked = true;
            if !self.waits || left.is_zero() {
                let text = format!("nobody listens on {}", call.queue);
                return Ok(Some(call.fail(ErrorCode::NoListener, &text)));
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    /// Publishes a message that goes nowhere, and waits until the broker has taken it. A broker that
    /// lacks memory says so only to who publishes, and keeps what it is given then until it has
    /// memory again, long after its sender is gone: it must not be given a request.
    fn rehearse(&self, call: &Call) -> amiquip::Result<Option<Response>> {
        if let Some(ConnectionBlockedNotification::Blocked(why)) =
            self.link.blocked.try_iter().last()
        {
            let text = format!("the broker takes no messages: {why}");
            return Ok(Some(call.fail(ErrorCode::Broker, &text)));
        }
        let nowhere = Publish::new(b"", "");
        self.link.call(call.until.left(), || self.channel.basic_publish("", nowhere))?;
        self.published.set(self.published.get() + 1);
        let time_is_up = at(instant(call.until));
        let fail = |code, text: &str| Ok(Some(call.fail(code, text)));
        loop {
            select! {
                recv(self.confirmed) -> confirm => match confirm {
                    Ok(Confirm::Ack(done) | Confirm::Nack(done)) => {
                        if done.delivery_tag >= self.published.get() {
                            return Ok(None);
                        }
                    }
                    // If the broker has said why, it has said it to the consumer.
                    Err(_) => return Err(self.replies.receiver().recv().map_or(
                        amiquip::Error::EventLoopDropped, why)),
                },
                recv(self.link.blocked) -> note => match note {
                    Ok(ConnectionBlockedNotification::Blocked(why)) => {
                        let text = format!("the broker takes no messages: {why}");
                        return fail(ErrorCode::Broker, &text);
                    }
                    Ok(ConnectionBlockedNotification::Unblocked) => {}
                    Err(_) => return Err(amiquip::Error::EventLoopDropped),
                },
                recv(time_is_up) -> _ => {
                    return fail(ErrorCode::Timeout, "timeout: the broker does not answer");
                }
            }
        }
    }

    /// It is not to outlive its caller: neither in the queue, nor on the broker's disk.
    fn publish(&self, call: &Call) -> amiquip::Result<()> {
        let millis = call.until.left().as_millis().max(1);
        let properties = AmqpProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(NON_PERSISTENT)
            .with_correlation_id(call.id.clone())
            .with_reply_to(REPLIES.into())
            .with_expiration(millis.to_string());
        let publish = Publish {
            body: &call.body,
            routing_key: call.queue.as_str().to_owned(),
            mandatory: true,
            immediate: false,
            properties,
        };
        self.published.set(self.published.get() + 1);
        self.link.call(call.until.left(), || self.channel.basic_publish("", publish))
    }

    fn await_answer(&self, call: &Call) -> Asked {
        let answered = |code, text: &str| Asked::Answered(Box::new(call.fail(code, text)));
        let spent = |code, text: &str| Asked::Spent(Box::new(call.fail(code, text)));
        let time_is_up = at(instant(call.until));
        let mut confirmed = self.confirmed.clone();
        let mut returned = self.returned.clone();
        loop {
            select! {
                recv(self.replies.receiver()) -> reply => match reply {
                    Ok(ConsumerMessage::Delivery(reply)) => {
                        if reply.properties.correlation_id().as_ref() == Some(&call.id) {
                            return Asked::Answered(Box::new(call.understand(&reply.body)));
                        }
                    }
                    Ok(end) => return spent(ErrorCode::Broker,
                        &format!("the broker was lost: {}; the outcome is unknown", reason(&why(end)))),
                    Err(_) => return spent(ErrorCode::Broker,
                        "the broker was lost; the outcome is unknown"),
                },
                recv(returned) -> message => match message {
                    Ok(_) => return answered(ErrorCode::NoListener,
                        &format!("nobody listens on {}", call.queue)),
                    Err(_) => returned = never(),
                },
                recv(confirmed) -> confirm => match confirm {
                    Ok(Confirm::Nack(_)) => {
                        return spent(ErrorCode::Broker, "the broker did not take the request");
                    }
                    Ok(Confirm::Ack(_)) => {}
                    Err(_) => confirmed = never(),
                },
                recv(time_is_up) -> _ => return spent(ErrorCode::Timeout, &format!(
                    "timeout: {} did not answer in time; the outcome is unknown", call.queue)),
            }
        }
    }
}

/// Why there are no more answers.
fn why(end: ConsumerMessage) -> amiquip::Error {
    match end {
        ConsumerMessage::ServerClosedChannel(why)
        | ConsumerMessage::ServerClosedConnection(why) => why,
        _ => amiquip::Error::EventLoopDropped,
    }
}

/// Whether anybody reads the queue. Where there is no queue, the broker closes the channel that
/// was used to look.
pub(crate) fn listens(
    link: &Link,
    probe: &mut Option<Channel>,
    queue: &QueueName,
    patience: Duration,
) -> amiquip::Result<bool> {
    let channel = match probe.take() {
        Some(channel) => channel,
        None => link.channel(patience)?,
    };
    let found = link.call(patience, || {
        channel.queue_declare_passive(queue.as_str()).map(|queue| queue.declared_consumer_count())
    });
    match found {
        Ok(consumers) => {
            *probe = Some(channel);
            Ok(consumers != Some(0))
        }
        Err(amiquip::Error::ServerClosedChannel { code: 404, .. }) => Ok(false),
        Err(why) => Err(why),
    }
}
