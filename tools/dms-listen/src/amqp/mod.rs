//! AMQP 0-9-1, as far as a listener and a caller need it, and no request in it.
//!
//! amiquip does the protocol. What it leaves to its users is minded here, and nowhere else:
//!
//! - It leaves Nagle's algorithm on, which costs 40 ms a message, and connects without a bound:
//!   [`link`] makes the socket itself.
//! - Its calls wait as long as the broker's heart beats, and dropping a channel or a connection is
//!   such a call: each has a [`time_limit`].
//! - A consumer that is dropped while messages come in may end the whole connection: a consumer
//!   here lives as long as its connection, or is cancelled with a second hold on its receiver.
//! - Its thread may panic when a close races with something: a lost connection like any other.
//! - An acknowledgement for an earlier connection would hit another message of this one: messages
//!   know the connection that they came from.
//! - It logs what it sends and what is returned to it, and prints URLs with their passwords: its
//!   log is off, and [`broker`] reads the URLs.
//! - A name of over 255 bytes is cut off: [`QueueName`] is checked.

pub(crate) mod backoff;
pub(crate) mod broker;
pub(crate) mod link;
mod parameters;
mod resolve;
mod time_limit;
mod tls;

/// A queue that we may declare or publish to: a name that fits the protocol and is not one of the
/// broker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueName(String);

impl QueueName {
    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(name: impl Into<String>) -> Result<QueueName, String> {
        let name = name.into();
        if name.is_empty() || name.len() > 255 {
            return Err("a queue name has 1 to 255 bytes".into());
        }
        if name.starts_with("amq.") {
            return Err("queue names that begin with \"amq.\" are the broker's own".into());
        }
        if name.chars().any(char::is_control) {
            return Err("the queue name contains a control character".into());
        }
        Ok(QueueName(name))
    }

    /// The queue that a node's listener reads: `dms.<node>`.
    ///
    /// # Errors
    /// If the node's name makes no queue name.
    pub(crate) fn of_node(node: &str) -> Result<QueueName, String> {
        if node.is_empty() {
            return Err("the node has no name".into());
        }
        QueueName::new(format!("dms.{node}"))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_name_fits_the_protocol() {
        for bad in ["", "amq.gen-x", "a\nb", &"x".repeat(256)] {
            assert!(QueueName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(QueueName::of_node("n1").expect("a good name").as_str(), "dms.n1");
        assert!(QueueName::of_node("").is_err() && QueueName::of_node(&"x".repeat(252)).is_err());
    }
}
