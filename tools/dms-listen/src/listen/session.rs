//! One connection's worth of messages and answers.

use std::collections::HashMap;
use std::time::Duration;

use amiquip::{
    AmqpProperties, Channel, ConnectionBlockedNotification, Consumer, ConsumerMessage,
    ConsumerOptions, Publish, QueueDeclareOptions,
};
use crossbeam_channel::{Receiver, never, select};

use crate::amqp::link::{CALL, Link};
use crate::listen::Event;
use crate::listen::courier::{Courier, Order};
use crate::listen::message::{Address, Delivery, Message};

/// What the broker waits for us to acknowledge, and how to reach it and the requests.
struct Session<'a> {
    courier: &'a Courier,
    link: &'a Link,
    channel: &'a Channel,
    consumer: &'a Consumer<'a>,
    connection: u64,
    unanswered: HashMap<u64, amiquip::Delivery>,
}

/// Declares the queue as every client does, says that it is there, and serves it until the courier
/// is told to close.
pub(crate) fn serve(
    courier: &Courier,
    link: &Link,
    channel: &Channel,
    connection: u64,
    is_there: impl FnOnce(),
) -> amiquip::Result<()> {
    let queue = courier.queue.as_str();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    link.call(CALL, || channel.queue_declare(queue, durable))?;
    link.call(CALL, || channel.qos(0, courier.prefetch, false))?;
    let consumer = link.call(CALL, || channel.basic_consume(queue, ConsumerOptions::default()))?;
    // The consumer stays until the end, cancelled or not: the connection would break if it went
    // while messages come in.
    let messages = consumer.receiver().clone();
    let _parting = link.bound_parting();
    let unanswered = HashMap::new();
    let session = Session { courier, link, channel, consumer: &consumer, connection, unanswered };
    is_there();
    session.run(messages)
}

impl Session<'_> {
    fn run(mut self, mut messages: Receiver<ConsumerMessage>) -> amiquip::Result<()> {
        loop {
            select! {
                recv(messages) -> message => match message {
                    Ok(message) => if let Some(message) = self.receive(message)? {
                        self.courier.desk.lock().take(message);
                    },
                    // Nothing comes any more; what was taken can still be answered.
                    Err(_) if self.is_draining() => messages = never(),
                    Err(_) => return Err(amiquip::Error::EventLoopDropped),
                },
                recv(self.courier.orders) -> order => match order {
                    Ok(Order::Finish { delivery, reply }) => self.finish(delivery, reply)?,
                    Ok(Order::HandBack(delivery)) => self.hand_back(delivery)?,
                    Ok(Order::Drain) => self.drain()?,
                    // The answer to it comes after the broker has read all that we sent before.
                    Ok(Order::Close) | Err(_) => return self.link.call(
                        CALL, || self.channel.qos(0, self.courier.prefetch, false)),
                },
                // It lives as long as the connection, consumer or not.
                recv(self.link.blocked) -> note => match note {
                    Ok(note) => self.courier.tell(Event::Blocked(match note {
                        ConnectionBlockedNotification::Blocked(why) => Some(why),
                        ConnectionBlockedNotification::Unblocked => None,
                    })),
                    Err(_) => return Err(amiquip::Error::EventLoopDropped),
                },
            }
        }
    }

    fn is_draining(&self) -> bool {
        self.courier.draining.get()
    }

    /// Takes no more messages.
    fn drain(&self) -> amiquip::Result<()> {
        if self.courier.draining.replace(true) {
            return Ok(());
        }
        self.link.call(CALL, || self.consumer.cancel())
    }

    /// What the broker has to say: a message, or that it has no more.
    fn receive(&mut self, message: ConsumerMessage) -> amiquip::Result<Option<Message>> {
        match message {
            ConsumerMessage::Delivery(delivery) if self.is_draining() => {
                delivery.nack(self.channel, true)?;
                Ok(None)
            }
            ConsumerMessage::Delivery(delivery) => Ok(Some(self.take(delivery))),
            ConsumerMessage::ClientCancelled if self.is_draining() => Ok(None),
            ConsumerMessage::ServerClosedChannel(why)
            | ConsumerMessage::ServerClosedConnection(why) => Err(why),
            ConsumerMessage::ServerCancelled => Err(amiquip::Error::ServerClosedChannel {
                channel_id: self.channel.channel_id(),
                code: 404,
                message: "the queue was deleted".to_owned(),
            }),
            ConsumerMessage::ClientCancelled
            | ConsumerMessage::ClientClosedChannel
            | ConsumerMessage::ClientClosedConnection => Err(amiquip::Error::ClientClosedChannel),
        }
    }

    fn take(&mut self, mut delivery: amiquip::Delivery) -> Message {
        let tag = delivery.delivery_tag();
        let properties = std::mem::take(&mut delivery.properties);
        let millis = properties.expiration().as_ref().and_then(|text| text.parse().ok());
        let message = Message {
            delivery: Delivery { connection: self.connection, tag },
            redelivered: delivery.redelivered,
            address: Address {
                reply_to: properties.reply_to().clone().filter(|queue| !queue.is_empty()),
                correlation_id: properties.correlation_id().clone(),
            },
            patience: millis.map(Duration::from_millis),
            body: std::mem::take(&mut delivery.body),
        };
        self.unanswered.insert(tag, delivery);
        message
    }

    /// One of an earlier connection is not ours any more: the broker hands it out again.
    fn release(&mut self, delivery: Delivery) -> Option<amiquip::Delivery> {
        let is_ours = delivery.connection == self.connection;
        is_ours.then(|| self.unanswered.remove(&delivery.tag)).flatten()
    }

    fn finish(
        &mut self,
        delivery: Delivery,
        reply: Option<(Address, Vec<u8>)>,
    ) -> amiquip::Result<()> {
        let Some(delivery) = self.release(delivery) else { return Ok(()) };
        if let Some((Address { reply_to: Some(queue), correlation_id }, body)) = reply {
            let mut properties =
                AmqpProperties::default().with_content_type("application/json".into());
            if let Some(id) = correlation_id {
                properties = properties.with_correlation_id(id);
            }
            // Not mandatory: whoever has gone away need not be told.
            let publish = Publish::with_properties(&body, queue, properties);
            self.channel.basic_publish("", publish)?;
        }
        delivery.ack(self.channel)
    }

    fn hand_back(&mut self, delivery: Delivery) -> amiquip::Result<()> {
        match self.release(delivery) {
            Some(delivery) => delivery.nack(self.channel, true),
            None => Ok(()),
        }
    }
}
