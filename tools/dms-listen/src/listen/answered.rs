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

/// Which request a message is: the one from the same sender, with the same id, and the same words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    address: Address,
    body: u64,
}

/// How often an answer is sent once more before it is given up.
const HOPELESS: u32 = 3;

impl Identity {
    /// Whether its sender gave it an id. If not, no two can be told apart from one that came twice.
    pub(crate) fn is_sure(&self) -> bool {
        self.address.correlation_id.is_some()
    }
}

/// The last answers.
#[derive(Debug)]
pub(crate) struct Answered {
    answers: HashMap<Identity, Vec<u8>>,
    /// How often a request has come again after it was answered.
    again: HashMap<Identity, u32>,
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
            again: HashMap::new(),
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

    /// Whether a message that was answered comes again so often that its answer must be what the
    /// broker breaks at.
    pub(crate) fn is_hopeless(&mut self, identity: &Identity) -> bool {
        if !self.answers.contains_key(identity) {
            return false;
        }
        let times = self.again.entry(identity.clone()).or_default();
        *times += 1;
        *times > HOPELESS
    }

    /// The answer that this request got.
    pub(crate) fn get(&self, identity: &Identity) -> Option<&Vec<u8>> {
        self.answers.get(identity)
    }

    /// Keeps an answer; the oldest ones have to go.
    pub(crate) fn keep(&mut self, identity: Identity, answer: Vec<u8>) {
        self.size += answer.len();
        if let Some(former) = self.answers.insert(identity.clone(), answer) {
            self.size -= former.len();
            self.order.retain(|kept| *kept != identity);
        }
        self.order.push_back(identity);
        while self.order.len() > self.most || self.size > MOST {
            let Some(oldest) = self.order.pop_front() else { return };
            self.again.remove(&oldest);
            self.size -= self.answers.remove(&oldest).map_or(0, |answer| answer.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::message::Delivery;

    fn message(id: Option<&str>, body: &str) -> Message {
        Message {
            delivery: Delivery { connection: 1, tag: 1 },
            redelivered: true,
            address: Address { correlation_id: id.map(str::to_owned), reply_to: None },
            patience: None,
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_its_id_its_sender_and_its_words() {
        let mut answered = Answered::new(2);
        let one = answered.identify(&message(Some("1"), "a"));
        answered.keep(one.clone(), b"done".to_vec());
        assert_eq!(answered.get(&one), Some(&b"done".to_vec()));
        for other in [message(Some("1"), "b"), message(Some("2"), "a")] {
            let other = answered.identify(&other);
            assert_eq!(answered.get(&other), None);
        }
        assert!(one.is_sure() && !answered.identify(&message(None, "a")).is_sure());
    }

    #[test]
    fn an_answer_that_does_not_arrive_is_given_up() {
        let mut answered = Answered::new(2);
        let one = answered.identify(&message(Some("1"), "a"));
        assert!(!answered.is_hopeless(&one), "it was not answered yet");
        answered.keep(one.clone(), b"done".to_vec());
        let times: Vec<bool> = (0..4).map(|_| answered.is_hopeless(&one)).collect();
        assert_eq!(times, [false, false, false, true]);
    }

    #[test]
    fn old_answers_go() {
        let mut answered = Answered::new(2);
        for id in ["1", "2", "3", "3"] {
            let identity = answered.identify(&message(Some(id), ""));
            answered.keep(identity, vec![b'x'; MOST / 2]);
        }
        assert_eq!((answered.order.len(), answered.size), (2, MOST));
        let huge = answered.identify(&message(Some("4"), ""));
        answered.keep(huge, vec![b'x'; MOST + 1]);
        assert_eq!((answered.order.len(), answered.answers.len(), answered.size), (0, 0, 0));
    }
}
