//! The requests that are neither answered nor handed back: what becomes of each, who gets it, and
//! who gets which answer.

use std::collections::HashMap;

use crossbeam_channel::Sender;
use dms_wire::{Deadline, ErrorCode, Response};

use crate::listen::answered::{Answered, Identity};
use crate::listen::courier::Order;
use crate::listen::desk::Hire;
use crate::listen::message::{Address, Delivery, Message, Rules, Work};
use crate::listen::schedule::{Schedule, Ticket};
use crate::listen::watch::Watch;
use crate::listen::worker::Worker;

/// All of them, and who works on them.
pub(crate) struct Requests {
    rules: Rules,
    hire: Hire,
    jobs: usize,
    prefetch: usize,
    courier: Sender<Order>,
    pub(crate) watch: Watch,
    /// Nothing is begun any more.
    is_ending: bool,
    open: HashMap<Ticket, Request>,
    /// Those of them that can be recognised if they come again.
    known: HashMap<Identity, Ticket>,
    next: Ticket,
    schedule: Schedule,
    workers: Vec<Worker>,
    /// The last one to have worked is the next to work: the filters of the others become idle.
    idle: Vec<usize>,
    /// What the workers have: the key of each request that runs.
    running: HashMap<Ticket, Option<String>>,
    answered: Answered,
    /// How many requests were answered since the start.
    pub(crate) count: u64,
}

struct Request {
    line: Vec<u8>,
    until: Deadline,
    address: Address,
    identity: Identity,
    /// What is to be acknowledged. None: its connection is gone, and it has not come again yet.
    deliveries: Vec<Delivery>,
}

impl Requests {
    pub(crate) fn new(
        rules: Rules,
        hire: Hire,
        jobs: usize,
        prefetch: u16,
        courier: Sender<Order>,
        watch: Watch,
    ) -> Requests {
        Requests {
            rules,
            hire,
            jobs,
            prefetch: prefetch.into(),
            courier,
            watch,
            is_ending: false,
            open: HashMap::new(),
            known: HashMap::new(),
            next: 0,
            schedule: Schedule::default(),
            workers: Vec::new(),
            idle: Vec::new(),
            running: HashMap::new(),
            answered: Answered::new(prefetch.into()),
            count: 0,
        }
    }

    /// How many requests are being done.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.schedule.waiting()
    }

    /// A message has come: it is refused, or recognised, or waits for its turn.
    pub(crate) fn take(&mut self, message: Message) {
        self.watch.tell();
        let delivery = message.delivery;
        if self.is_ending {
            return self.order(Order::HandBack(delivery));
        }
        if !self.rules.allow(&message.address) {
            let queue = message.address.reply_to.unwrap_or_default();
            log::warn!("refused a request that wants its answer in queue {queue:?}");
            return self.order(Order::Finish { delivery, reply: None });
        }
        let identity = self.answered.identify(&message);
        if message.redelivered && self.answered.is_hopeless(&identity, delivery.connection) {
            let id = message.address.correlation_id.unwrap_or_default();
            log::error!("gave up answering request {id:?}: the connection breaks each time");
            return self.order(Order::Finish { delivery, reply: None });
        }
        if message.redelivered && identity.is_sure() && self.recognise(&message, &identity) {
            return;
        }
        match self.rules.read(&message) {
            Err(refusal) => {
                self.count += 1;
                let refusal = refusal.to_line();
                self.send(&[delivery], message.address, refusal.clone());
                self.answered.keep(identity, refusal, Some(delivery.connection));
            }
            Ok(Work { line, key, until }) => {
                let ticket = self.next;
                self.next += 1;
                if identity.is_sure() {
                    // Of two alike, the first is the one that comes again.
                    self.known.entry(identity.clone()).or_insert(ticket);
                }
                let address = message.address;
                let request =
                    Request { line, until, address, identity, deliveries: vec![delivery] };
                self.open.insert(ticket, request);
                self.schedule.add(ticket, key);
                self.make_room();
            }
        }
        self.assign();
    }

    /// A message that came before: the broker does not know that we have it, or that we answered.
    fn recognise(&mut self, message: &Message, identity: &Identity) -> bool {
        let connection = message.delivery.connection;
        if let Some(answer) = self.answered.send_again(identity, connection) {
            self.send(&[message.delivery], message.address.clone(), answer);
            return true;
        }
        let Some(request) = self.known.get(identity).and_then(|t| self.open.get_mut(t)) else {
            return false;
        };
        request.deliveries.push(message.delivery);
        true
    }

    /// Where the requests for one key have taken all the room, and others could be done, the last
    /// one of them is refused.
    fn make_room(&mut self) {
        let has_hands = self.running.len() < self.jobs;
        if self.open.len() < self.prefetch || self.schedule.is_ready() || !has_hands {
            return;
        }
        let Some(ticket) = self.schedule.drop_from_longest() else { return };
        let text = "too many requests for this target are waiting already";
        self.finish(ticket, Response::error(ErrorCode::Busy, text).to_line());
    }

    /// Hands out what can be begun.
    fn assign(&mut self) {
        while self.schedule.is_ready() && self.running.len() < self.jobs {
            let Some(worker) = self.idle.pop().or_else(|| self.hire()) else { return };
            let Some((ticket, key)) = self.schedule.begin() else { return };
            let Some(request) = self.open.get_mut(&ticket) else { continue };
            let line = std::mem::take(&mut request.line);
            self.workers[worker].give(ticket, line, request.until);
            self.running.insert(ticket, key);
        }
    }

    fn hire(&mut self) -> Option<usize> {
        let number = self.workers.len();
        match (self.hire)(number) {
            Ok(worker) => {
                self.workers.push(worker);
                Some(number)
            }
            Err(why) => {
                // The others go on; with none at all, requests wait until their time is up.
                log::error!("unable to start a thread: {}", dms_cli::plain(&why.to_string()));
                None
            }
        }
    }

    /// A worker has an answer, and is free again.
    pub(crate) fn answer(&mut self, worker: usize, ticket: Ticket, answer: Vec<u8>) {
        self.watch.tell();
        self.idle.push(worker);
        if let Some(Some(key)) = self.running.remove(&ticket) {
            self.schedule.give_back(key);
        }
        self.finish(ticket, answer);
        self.assign();
    }

    /// The request is over.
    fn finish(&mut self, ticket: Ticket, answer: Vec<u8>) {
        let Some(request) = self.open.remove(&ticket) else { return };
        self.count += 1;
        let sent_on = request.deliveries.first().map(|delivery| delivery.connection);
        self.send(&request.deliveries, request.address, answer.clone());
        self.unlearn(&request.identity, ticket);
        self.answered.keep(request.identity, answer, sent_on);
    }

    fn send(&self, deliveries: &[Delivery], address: Address, answer: Vec<u8>) {
        // One that came twice is answered once.
        let mut reply = Some((address, answer));
        for &delivery in deliveries {
            self.order(Order::Finish { delivery, reply: reply.take() });
        }
    }

    fn order(&self, order: Order) {
        // One that has ended has no connection, and nothing to do it on.
        let _ = self.courier.send(order);
    }

    /// Answers those that have waited too long.
    pub(crate) fn expire(&mut self) {
        let open = &self.open;
        let late = |ticket| open.get(&ticket).is_some_and(|request| request.until.passed());
        for ticket in self.schedule.take_out(late) {
            let text = "timeout: it was not begun in time, earlier requests took too long";
            self.finish(ticket, Response::error(ErrorCode::Timeout, text).to_line());
        }
        self.assign();
    }

    /// The connection is lost. What waits comes again; what runs goes on, and its answer waits for
    /// its request to come again.
    pub(crate) fn lose_connection(&mut self) {
        for ticket in self.schedule.take_out(|_| true) {
            self.forget(ticket);
        }
        for request in self.open.values_mut() {
            request.deliveries.clear();
        }
    }

    /// Gives back what has not been begun, and whatever comes from now on. Who watches is told of each
    /// request that ends.
    pub(crate) fn hand_back(&mut self) {
        self.is_ending = true;
        self.watch.tells_each = true;
        self.order(Order::Drain);
        for ticket in self.schedule.take_out(|_| true) {
            for delivery in self.forget(ticket) {
                self.order(Order::HandBack(delivery));
            }
        }
    }

    fn forget(&mut self, ticket: Ticket) -> Vec<Delivery> {
        let Some(request) = self.open.remove(&ticket) else { return Vec::new() };
        self.unlearn(&request.identity, ticket);
        request.deliveries
    }

    /// Of two alike, one is known.
    fn unlearn(&mut self, identity: &Identity, ticket: Ticket) {
        if self.known.get(identity) == Some(&ticket) {
            self.known.remove(identity);
        }
    }

    /// Lets the workers end their filters; returns how many there are.
    pub(crate) fn dismiss(&self) -> usize {
        self.workers.iter().for_each(Worker::retire);
        self.workers.len()
    }

    /// Lets the courier end.
    pub(crate) fn close(&self) {
        self.order(Order::Close);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn what_comes_after_the_end_has_begun_is_handed_back() {
        let rules = Rules {
            node: "n".into(),
            key: None,
            timeout: Duration::from_secs(9),
            reply_to: vec![],
        };
        let (courier, ordered) = unbounded();
        let hire: Hire = Box::new(|_| panic!("it was begun"));
        let mut requests = Requests::new(rules, hire, 1, 9, courier, Watch::new(unbounded().0));
        requests.hand_back();
        let delivery = Delivery { connection: 1, tag: 2 };
        let (redelivered, address, patience) = (false, Address::default(), None);
        requests.take(Message { delivery, redelivered, address, patience, body: b"{}".to_vec() });
        let ordered: Vec<Order> = ordered.try_iter().collect();
        assert!(matches!(ordered[..], [Order::Drain, Order::HandBack(back)] if back == delivery));
    }
}
