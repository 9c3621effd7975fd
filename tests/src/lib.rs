//! The laboratory: a node of its own for each test, on real parts.
//!
//! A [`Lab`] has its own directories, its own S3 server that verifies signatures, its own ledger,
//! locks and mounts. Whatever is left of it when it is dropped is ended and unmounted. Nothing in
//! it depends on a service that happens to run.

mod broker;
pub mod calling;
mod certificates;
mod database;
mod dice;
mod engine;
mod guest;
mod held;
mod lab;
mod listener;
mod machine;
mod nfs;
mod openstack;
mod past;
mod peer;
mod ports;
mod process;
mod remote;
mod run;
mod server;
mod strace;
mod takers;
mod vault;
mod witness;
mod zfs;

pub use broker::{Broker, Queue};
pub use database::Database;
pub use dice::Dice;
pub use guest::{Bounds, Guest, Scenario};
pub use held::{Filter, Held};
pub use lab::{Lab, NODE, mount_source};
pub use listener::Listener;
pub use machine::Machine;
pub use nfs::{HOSTILE_EXPORTS, HOSTILE_OPTIONS, NfsNode, script};
pub use openstack::OpenStack;
pub use past::{BUSY_JOB, BUSY_TARGET, fill, ledger_alone};
pub use peer::{Handler, Heard, Peer};
pub use process::{Process, processes_with, waits_for_lock, wakes};
pub use remote::RemoteLab;
pub use run::{Run, bin_dir, eventually, is_long_run, run};
pub use strace::{Boundary, boundaries, killed_at, summary, traced, was_killed};
pub use takers::{Taker, Takers};
pub use vault::Vault;
pub use witness::{Witness, answer};
pub use zfs::ZfsHost;
