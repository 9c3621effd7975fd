//! What was answered of late: a message that comes again gets the same answer, and is not done
//! again.
//!
//! The broker hands a message out again when it has not seen our acknowledgement. It can have lost
//! no more of them than it lets us have messages, so that many answers are kept.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::listen::message::{Address, Message};

/// The longest text that the answers have together, in bytes.
const MOST: usize = 16 << 20;

/// On how many connections an answer is sent once more before it is given up.
const HOPELESS: u32 = 3;

/// Which request a message is: the one from the same sender, with the same id, and the same words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    address: Address,
    body: u64,
}

impl Identity {
    /// Whether its sender gave it an id. If not, no two can be told apart from one that came twice.
    pub(crate) fn is_sure(&self) -> bool {
        self.address.correlation_id.as_ref().is_some_and(|id| !id.is_empty())
    }
}

#[derive(Debug)]
struct Answer {
    text: Vec<u8>,
    /// The last connection that it was sent on. `None`: there was none when it was there.
    sent_on: Option<u64>,
    /// On how many connections the request has come again after an earlier one had its answer.
    again: u32,
}

/// The last answers.
#[derive(Debug)]
pub(crate) struct Answered {
    answers: HashMap<Identity, Answer>,
    order: VecDeque<Identity>,
    size: usize,
    most: usize,
    hasher: RandomState,
}

impl Answered {
    /// Keeps this many.
    pub(crate) fn new(most: usize) -> Answered {
        Answered {
            answers: HashMap::new(),
            order: VecDeque::new(),
            size: 0,
            most,
            hasher: RandomState::new(),
        }
    }

    /// Which request this is.
    pub(crate) fn identify(&self, message: &Message) -> Identity {
        let body = self.hasher.hash_one(&message.body);
        Identity { address: message.address.clone(), body }
    }

    /// Whether a request comes again on so many connections after it was answered on an earlier
    /// one that its answer must be what they break at. A connection counts once: requests without
    /// an id are all alike, and any number of them may come again on it.
    pub(crate) fn is_hopeless(&mut self, identity: &Identity, connection: u64) -> bool {
        if identity.address.reply_to.is_none() {
            // What is not sent breaks nothing.
            return false;
        }
        let Some(answer) = self.answers.get_mut(identity) else { return false };
        if answer.sent_on.is_some_and(|last| last < connection) {
            answer.again += 1;
            answer.sent_on = Some(connection);
        }
        answer.again > HOPELESS
    }

    /// The answer that this request got, to be sent on this connection.
    pub(crate) fn send_again(&mut self, identity: &Identity, connection: u64) -> Option<Vec<u8>> {
        let answer = self.answers.get_mut(identity)?;
        answer.sent_on = Some(connection);
        Some(answer.text.clone())
    }

    /// Keeps an answer, and which connection it was sent on; the oldest ones have to go.
    pub(crate) fn keep(&mut self, identity: Identity, text: Vec<u8>, sent_on: Option<u64>) {
        self.size += text.len();
        let again = self.answers.get(&identity).map_or(0, |former| former.again);
        let answer = Answer { text, sent_on, again };
        if let Some(former) = self.answers.insert(identity.clone(), answer) {
            self.size -= former.text.len();
            self.order.retain(|kept| *kept != identity);
        }
        self.order.push_back(identity);
        while self.order.len() > self.most || self.size > MOST {
            let Some(oldest) = self.order.pop_front() else { return };
            self.size -= self.answers.remove(&oldest).map_or(0, |answer| answer.text.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::message::Delivery;

    fn message(id: Option<&str>, reply_to: Option<&str>, body: &str) -> Message {
        Message {
            delivery: Delivery { connection: 1, tag: 1 },
            redelivered: true,
            address: Address {
                correlation_id: id.map(str::to_owned),
                reply_to: reply_to.map(str::to_owned),
            },
            patience: None,
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_its_id_its_sender_and_its_words() {
        let mut answered = Answered::new(2);
        let one = answered.identify(&message(Some("1"), Some("q"), "a"));
        answered.keep(one.clone(), b"done".to_vec(), Some(1));
        assert_eq!(answered.send_again(&one, 2), Some(b"done".to_vec()));
        for (id, reply_to, body) in
            [("1", Some("q"), "b"), ("2", Some("q"), "a"), ("1", Some("r"), "a"), ("1", None, "a")]
        {
            let other = answered.identify(&message(Some(id), reply_to, body));
            assert_eq!(answered.send_again(&other, 2), None);
        }
        assert!(one.is_sure());
        assert!(
            [None, Some("")]
                .iter()
                .all(|id| !answered.identify(&message(*id, None, "a")).is_sure())
        );
    }

    #[test]
    fn an_answer_that_connections_break_at_is_given_up() {
        let mut answered = Answered::new(2);
        let one = answered.identify(&message(Some("1"), Some("q"), "a"));
        assert!(!answered.is_hopeless(&one, 1), "it was not answered yet");
        answered.keep(one.clone(), b"done".to_vec(), Some(1));
        let times = (2..6).map(|connection| {
            let hopeless = answered.is_hopeless(&one, connection);
            answered.send_again(&one, connection);
            hopeless
        });
        assert_eq!(times.collect::<Vec<_>>(), [false, false, false, true]);
    }

    #[test]
    fn an_answer_that_was_not_sent_yet_broke_nothing() {
        let mut answered = Answered::new(2);
        let one = answered.identify(&message(Some("1"), Some("q"), "a"));
        answered.keep(one.clone(), b"done".to_vec(), None);
        for connection in 2..6 {
            assert!(!answered.is_hopeless(&one, connection));
        }
        assert!(answered.send_again(&one, 6).is_some());
        assert!(!answered.is_hopeless(&one, 6), "it is that connection which it was sent on");
    }

    #[test]
    fn any_number_of_requests_without_an_id_come_again_on_one_connection() {
        let mut answered = Answered::new(2);
        let alike = answered.identify(&message(None, Some("q"), "a"));
        answered.keep(alike.clone(), b"done".to_vec(), Some(1));
        for _ in 0..10 {
            assert!(!answered.is_hopeless(&alike, 2));
            answered.keep(alike.clone(), b"done".to_vec(), Some(2));
        }
        let silent = answered.identify(&message(None, None, "a"));
        for connection in 1..10 {
            assert!(!answered.is_hopeless(&silent, connection), "nothing is sent");
            answered.keep(silent.clone(), b"done".to_vec(), Some(connection));
        }
    }

    #[test]
    fn old_answers_go() {
        let mut answered = Answered::new(2);
        for id in ["1", "2", "3", "3"] {
            let identity = answered.identify(&message(Some(id), None, ""));
            answered.keep(identity, vec![b'x'; MOST / 2], None);
        }
        assert_eq!((answered.order.len(), answered.size), (2, MOST));
        let huge = answered.identify(&message(Some("4"), None, ""));
        answered.keep(huge, vec![b'x'; MOST + 1], None);
        assert_eq!((answered.order.len(), answered.answers.len(), answered.size), (0, 0, 0));
    }
}
