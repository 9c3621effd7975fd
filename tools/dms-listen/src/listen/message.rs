//! A message, and what is made of it: a line for a filter, or a refusal.

use std::time::Duration;

use dms_wire::{Deadline, Invalid, MAX_LINE, Response};
use serde_json::{Map, Value};

/// A message as it came from the broker.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) delivery: Delivery,
    /// The broker may have handed it out before.
    pub(crate) redelivered: bool,
    pub(crate) address: Address,
    /// How long the sender is going to wait, if it said so.
    pub(crate) patience: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// What is to be acknowledged, and on which connection: on another one the tag is another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) connection: u64,
    pub(crate) tag: u64,
}

/// Whom to answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Address {
    pub(crate) reply_to: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

/// What the listener requires of each message, and adds to it.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) node: String,
    /// Where in a request its key is (a JSON pointer), if requests are to be kept in order.
    pub(crate) key: Option<String>,
    pub(crate) timeout: Duration,
    /// Which queues may be answered to; `*` stands for anything.
    pub(crate) reply_to: Vec<String>,
}

/// What a filter is given.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) line: Vec<u8>,
    /// Of two with the same key, the second has to wait for the first.
    pub(crate) key: Option<String>,
    pub(crate) until: Deadline,
}

impl Rules {
    /// Whether an answer may go there: the sender chooses it, and must not make us write into
    /// somebody's queue of requests.
    pub(crate) fn allow(&self, address: &Address) -> bool {
        let fits = |queue: &String| self.reply_to.iter().any(|pattern| matches(pattern, queue));
        address.reply_to.as_ref().is_none_or(fits)
    }

    /// The line for the filter: the message, in one line, with `deadline`, and with `request_id`
    /// if it has none of its own.
    pub(crate) fn read(&self, message: &Message) -> Result<Work, Response> {
        let invalid = |text: String| Response::invalid(&Invalid(text));
        if message.body.len() > MAX_LINE {
            return Err(Response::too_long());
        }
        let mut fields: Map<String, Value> = serde_json::from_slice(&message.body)
            .map_err(|_| invalid("Invalid JSON format in request: not a JSON object".into()))?;
        match fields.get("host") {
            Some(Value::String(host)) if *host != self.node => {
                let text = format!("the request is for another node, this is {}", self.node);
                return Err(invalid(text));
            }
            None | Some(Value::Null | Value::String(_)) => {}
            Some(_) => return Err(invalid("host is not a string".into())),
        }
        let until = Deadline::after(message.patience.map_or(self.timeout, |p| p.min(self.timeout)));
        fields.insert("deadline".into(), until.seconds().into());
        if let Some(id) = &message.address.correlation_id
            && fields.get("request_id").is_none_or(Value::is_null)
        {
            fields.insert("request_id".into(), id.as_str().into());
        }
        let fields = Value::Object(fields);
        let key = self.key.as_ref().and_then(|pointer| key(fields.pointer(pointer)?));
        let line = serde_json::to_vec(&fields).expect("it was read as JSON");
        Ok(Work { line, key, until })
    }
}

/// `null` is no key.
fn key(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether the name fits the pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Rules {
        Rules {
            node: "n1".into(),
            key: Some("/backup_target/id".into()),
            timeout: Duration::from_secs(300),
            reply_to: vec!["amq.gen-*".into(), "amq.rabbitmq.reply-to.*".into()],
        }
    }

    fn message(body: &[u8], id: Option<&str>) -> Message {
        Message {
            delivery: Delivery { connection: 1, tag: 1 },
            redelivered: false,
            address: Address { reply_to: None, correlation_id: id.map(str::to_owned) },
            patience: None,
            body: body.to_vec(),
        }
    }

    fn line(body: &Value, id: Option<&str>) -> Value {
        let work = rules().read(&message(body.to_string().as_bytes(), id)).expect("a request");
        serde_json::from_slice(&work.line).expect("it is JSON")
    }

    #[test]
    fn the_line_has_the_correlation_id_and_a_deadline() {
        let line = line(&json!({"action": "mount", "x": [1, 2], "deadline": 1.0}), Some("c-1"));
        assert_eq!((&line["request_id"], &line["x"]), (&json!("c-1"), &json!([1, 2])));
        let deadline = line["deadline"].as_f64().and_then(Deadline::from_seconds);
        assert!(deadline.expect("a moment").left() > Duration::from_secs(299));
    }

    #[test]
    fn an_id_of_its_own_is_kept() {
        assert_eq!(line(&json!({"request_id": "mine"}), Some("c-1"))["request_id"], "mine");
        assert_eq!(line(&json!({}), None).get("request_id"), None);
    }

    #[test]
    fn the_sender_may_be_less_patient_than_we_are() {
        for (patience, most) in [(Some(5), 5), (Some(1000), 300), (None, 300)] {
            let patience = patience.map(Duration::from_secs);
            let message = Message { patience, ..message(b"{}", None) };
            let left = rules().read(&message).expect("a request").until.left().as_secs_f64();
            assert!(left <= f64::from(most) && left > f64::from(most - 1), "{left}");
        }
    }

    #[test]
    fn a_request_of_several_lines_becomes_one() {
        let work = rules().read(&message(b"{\n \"a\":\n 1}\n", None)).expect("a request");
        assert!(!work.line.contains(&b'\n'));
    }

    #[test]
    fn what_is_no_request_for_this_node_is_refused() {
        for body in ["", "{", "[1]", "null", "\u{1}", "{\"host\":\"n2\"}", "{\"host\":5}"] {
            assert!(rules().read(&message(body.as_bytes(), None)).is_err(), "{body:?}");
        }
        assert!(rules().read(&message(b"\xff", None)).is_err());
        assert!(rules().read(&message(b"{\"host\":\"n1\"}", None)).is_ok());
    }

    #[test]
    fn the_key_is_where_the_pointer_points() {
        let key = |body: &str| rules().read(&message(body.as_bytes(), None)).expect("good").key;
        assert_eq!(key(r#"{"backup_target":{"id":"t1"}}"#), Some("t1".into()));
        assert_eq!(key(r#"{"backup_target":{"id":7}}"#), Some("7".into()));
        assert_eq!(key(r#"{"backup_target":{"id":null}}"#), None);
        assert_eq!(key("{}"), None);
    }

    #[test]
    fn only_reply_queues_are_answered_to() {
        let allowed = |queue: &str| {
            rules().allow(&Address { reply_to: Some(queue.into()), ..Address::default() })
        };
        assert!(allowed("amq.gen-x") && allowed("amq.rabbitmq.reply-to.g1.2"));
        assert!(!allowed("dms.n2") && !allowed("x.amq.gen-x") && !allowed(""));
        assert!(rules().allow(&Address::default()));
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
