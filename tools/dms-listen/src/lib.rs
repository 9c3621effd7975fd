//! Requests over RabbitMQ: dms-listen, which serves a node's queue, and dms-call, which asks a
//! node. Both know AMQP, lines and time, and nothing of mounts.

pub(crate) mod amqp;
pub mod call;
pub mod listen;
mod settings;
