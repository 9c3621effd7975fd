//! Settings that both programs read.

use std::time::Duration;

use dms_cli::{Failure, Settings, refuse};

use crate::amqp::QueueName;
use crate::amqp::broker::Broker;

/// The brokers of `DMS_RABBITMQ_URL`.
pub(crate) fn brokers(settings: &Settings) -> Result<Vec<Broker>, Failure> {
    let url = settings.rabbitmq_url.as_deref();
    let url = url.ok_or_else(|| Failure::permanent("DMS_RABBITMQ_URL is not set"))?;
    Broker::list(url).map_err(|why| Failure::permanent(why.to_string()))
}

/// The queue of this node.
pub(crate) fn own_queue(settings: &Settings) -> Result<QueueName, Failure> {
    let queue = QueueName::of_node(&settings.node_id);
    queue.map_err(|why| Failure::permanent(format!("DMS_NODE_ID: {why}")))
}

/// The value of an option.
pub(crate) fn seconds(option: &str, seconds: f64) -> Result<Duration, Failure> {
    dms_cli::seconds(seconds)
        .ok_or_else(|| refuse(&format!("{option} {seconds} is not a number of seconds")))
}
