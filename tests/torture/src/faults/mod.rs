//! What is done to a run: faults of many kinds, at moments and in an order that the seed decides.
//!
//! Each is put down in the history before it is done, so that nothing that it causes comes first.

mod deliver;
mod disk;
mod files;
mod network;
mod node;
mod process;
mod service;

pub(crate) use node::cut_power;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Scope;

use clap::ValueEnum;
use dms_tests::Dice;
use serde_json::json;

use crate::world::World;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of any process of a node but the daemons: listener, stages, callers, dms-with
    Kill,
    /// kill -9 of the daemon behind a mount, or of what keeps its words
    Daemon,
    /// SIGSTOP of one of them, and SIGCONT some time later
    Stop,
    /// The broker is killed or restarted, or stands still
    Broker,
    /// The database is killed or restarted, or stands still
    Database,
    /// The S3 server is killed or stands still, the NFS server goes away
    Storage,
    /// The wire between a node and broker, database, S3 server or all of them is cut
    Cut,
    /// A request that was done comes once more
    Duplicate,
    /// Somebody takes a node's messages away, and answers none
    Thief,
    /// A stage's system calls say ENOSPC or EIO
    Disk,
    /// What is started on a node has another time of day
    Clock,
    /// Lock files that nobody holds are removed
    Locks,
    /// A PID file says something else
    Pids,
    /// A listener is told to end, and started again
    Restart,
    /// A node loses its power
    Reboot,
    /// Two listeners for one node
    Twins,
    /// No fault: ledger and node are brought together, as a timer does
    Reconcile,
}

/// How often each comes, one beside the other.
fn weight(fault: Fault) -> u64 {
    match fault {
        Fault::Kill => 10,
        Fault::Stop | Fault::Duplicate => 6,
        Fault::Disk => 5,
        Fault::Daemon
        | Fault::Cut
        | Fault::Locks
        | Fault::Pids
        | Fault::Restart
        | Fault::Reconcile => 3,
        Fault::Storage | Fault::Database | Fault::Clock | Fault::Twins => 2,
        Fault::Thief | Fault::Broker | Fault::Reboot => 1,
    }
}

/// One after the other, until the end; those that last run beside each other.
pub(crate) fn inject<'scope>(scope: &'scope Scope<'scope, '_>, world: &'scope World) {
    let options = &world.hub.options;
    let faults = options.chosen();
    let total: u64 = faults.iter().map(|fault| weight(*fault)).sum();
    let mut dice = Dice::new(options.seed);
    if faults.is_empty() {
        return;
    }
    while !world.is_over() {
        let percent = u32::try_from(25 + dice.below(150)).expect("small");
        world.rest(options.pause * f64::from(percent) / 100.0);
        let mut place = dice.below(total);
        let chosen = faults.iter().copied().find(|fault| {
            let is_it = place < weight(*fault);
            place = place.saturating_sub(weight(*fault));
            is_it
        });
        // Each has dice of its own, so that the order does not hang on what it finds.
        let own = Dice::new(dice.below(u64::from(u32::MAX)));
        if let Some(fault) = chosen.filter(|_| !world.is_over()) {
            scope.spawn(move || run(world, fault, own));
        }
    }
}

fn run(world: &World, fault: Fault, mut dice: Dice) {
    let act = || match fault {
        Fault::Kill => process::kill_one(world, &mut dice),
        Fault::Daemon => process::kill_daemon(world, &mut dice),
        Fault::Stop => process::stop_one(world, &mut dice),
        Fault::Broker => service::broker(world, &mut dice),
        Fault::Database => service::database(world, &mut dice),
        Fault::Storage => service::storage(world, &mut dice),
        Fault::Cut => network::cut(world, &mut dice),
        Fault::Duplicate => deliver::again(world, &mut dice),
        Fault::Thief => deliver::steal(world, &mut dice),
        Fault::Disk => disk::fail(world, &mut dice),
        Fault::Clock => node::shift_clock(world, &mut dice),
        Fault::Locks => files::remove_locks(world, &mut dice),
        Fault::Pids => files::spoil_pid(world, &mut dice),
        Fault::Restart => node::restart(world, &mut dice),
        Fault::Reboot => node::reboot(world, &mut dice),
        Fault::Twins => node::twins(world, &mut dice),
        Fault::Reconcile => node::reconcile(world, &mut dice),
    };
    // One that could not be done, as the service that it needs is down, is no verdict on dms.
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        world.hub.history.note("fault-failed", json!({"fault": word(fault)}));
    }
}

/// Its name, as on the command line.
pub(crate) fn word(fault: Fault) -> String {
    fault.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// One of them.
fn pick<'a, T>(dice: &mut Dice, all: &'a [T]) -> Option<&'a T> {
    if all.is_empty() {
        return None;
    }
    all.get(usize::try_from(dice.below(all.len() as u64)).unwrap_or_default())
}

/// From so many tenths of a second to so many, in seconds.
fn seconds(dice: &mut Dice, from: u64, to: u64) -> f64 {
    f64::from(u32::try_from(from + dice.below(to - from + 1)).unwrap_or_default()) / 10.0
}
