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

/// The last answers.
#[derive(Debug)]
pub(crate) struct Answered {
    answers: HashMap<Identity, Vec<u8>>,
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

    /// Which request this is; `None` if its sender gave it no id: then no two can be told apart
    /// from one that came twice.
    pub(crate) fn identify(&self, message: &Message) -> Option<Identity> {
        message.address.correlation_id.as_ref()?;
        let body = self.hasher.hash_one(&message.body);
        Some(Identity { address: message.address.clone(), body })
    }

    /// The answer that this request got.
    pub(crate) fn get(&self, identity: &Identity) -> Option<&Vec<u8>> {
        self.answers.get(identity)
    }

    /// Keeps an answer; the oldest ones have to go.
    pub(crate) fn keep(&mut self, identity: Identity, answer: Vec<u8>) {
        self.size += answer.len();
        match self.answers.insert(identity.clone(), answer) {
            Some(former) => self.size -= former.len(),
            None => self.order.push_back(identity),
        }
        while self.order.len() > self.most || self.size > MOST {
            let Some(oldest) = self.order.pop_front() else { return };
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
        let one = answered.identify(&message(Some("1"), "a")).expect("it has an id");
        answered.keep(one.clone(), b"done".to_vec());
        assert_eq!(answered.get(&one), Some(&b"done".to_vec()));
        for other in [message(Some("1"), "b"), message(Some("2"), "a")] {
            let other = answered.identify(&other).expect("it has an id");
            assert_eq!(answered.get(&other), None);
        }
        assert_eq!(answered.identify(&message(None, "a")), None);
    }

    #[test]
    fn old_answers_go() {
        let mut answered = Answered::new(2);
        for id in ["1", "2", "3", "3"] {
            let identity = answered.identify(&message(Some(id), "")).expect("it has an id");
            answered.keep(identity, vec![b'x'; MOST / 2]);
        }
        assert_eq!((answered.order.len(), answered.size), (2, MOST));
        let huge = answered.identify(&message(Some("4"), "")).expect("it has an id");
        answered.keep(huge, vec![b'x'; MOST + 1]);
        assert_eq!((answered.order.len(), answered.answers.len(), answered.size), (0, 0, 0));
    }
}
