//! Is the broker there, and does the node listen?

use std::time::Duration;

use dms_cli::{Exit, Failure};
use dms_wire::Deadline;

use crate::amqp::QueueName;
use crate::amqp::broker::Broker;
use crate::amqp::link::reason;
use crate::call::ask::listens;
use crate::call::serve::connect;

/// Says on stderr what is missing: the node's listener (exit code 1) or the broker (111).
pub(crate) fn check(
    brokers: &[Broker],
    queue: &QueueName,
    patience: Duration,
) -> Result<Exit, Failure> {
    let until = Deadline::after(patience);
    let link = connect(brokers, until).map_err(Failure::temporary)?;
    let mut probe = None;
    let listening = listens(&link, &mut probe, queue, until.left());
    let _parting = link.bound_parting();
    match listening {
        Ok(true) => {
            log::info!("{queue} is being served");
            Ok(Exit::Done)
        }
        Ok(false) => Err(Failure::new(Exit::No, format!("nobody listens on {queue}"))),
        Err(why) => Err(Failure::temporary(format!("unable to look at {queue}: {}", reason(&why)))),
    }
}
