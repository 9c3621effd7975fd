//! Requests over RabbitMQ: dms-listen, which serves a node's queue, and dms-call, which asks a
//! node. The listener knows AMQP, lines and time, and nothing of mounts; the caller knows plans, too.

mod amqp;
mod call;
mod listen;
mod settings;

pub use call::run as call;
pub use listen::run as listen;
