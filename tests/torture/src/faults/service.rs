//! The services that die, are restarted, or stand still.

use std::thread::sleep;
use std::time::Duration;

use dms_tests::Dice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::seconds;
use crate::world::World;

fn begin(world: &World, fault: &str, how: &str) {
    world.hub.history.note("fault", json!({"fault": fault, "how": how}));
}

fn over(world: &World, fault: &str) {
    world.hub.history.note("fault-over", json!({"fault": fault}));
}

fn wait(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds));
}

pub(super) fn broker(world: &World, dice: &mut Dice) {
    let Some(mut broker) = world.hub.broker() else { return };
    let _stall = world.stall();
    match dice.below(3) {
        0 => {
            begin(world, "broker", "stop");
            broker.suspend();
            wait(seconds(dice, 5, 40));
            broker.resume();
        }
        1 => {
            begin(world, "broker", "kill");
            broker.kill();
            broker.start_again();
        }
        _ => {
            begin(world, "broker", "restart");
            broker.restart();
        }
    }
    over(world, "broker");
}

pub(super) fn database(world: &World, dice: &mut Dice) {
    let Some(mut database) = world.hub.database() else { return };
    let _stall = world.stall();
    match dice.below(3) {
        0 => {
            begin(world, "database", "stop");
            database.suspend();
            wait(seconds(dice, 5, 40));
            database.resume();
        }
        1 => {
            begin(world, "database", "kill");
            database.kill();
            wait(seconds(dice, 0, 20));
            database.start_again();
        }
        _ => {
            begin(world, "database", "restart");
            database.restart();
        }
    }
    over(world, "database");
}

pub(super) fn storage(world: &World, dice: &mut Dice) {
    // Where there are no buckets, nobody would miss the S3 server.
    if world.hub.has_exports() && (dice.below(2) == 0 || world.hub.options.targets == 0) {
        return exports(world, dice);
    }
    let Some(mut storage) = world.hub.storage() else { return };
    let _stall = world.stall();
    if dice.below(2) == 0 {
        begin(world, "storage", "stop");
        let pid = Pid::from_raw(storage.pid());
        let _ = kill(pid, Signal::SIGSTOP);
        wait(seconds(dice, 5, 40));
        let _ = kill(pid, Signal::SIGCONT);
    } else {
        begin(world, "storage", "kill");
        storage.kill_and_start(Duration::from_secs_f64(seconds(dice, 0, 20))).expect("it starts");
    }
    over(world, "storage");
}

/// The NFS server goes away and is back: whoever has mounted it waits meanwhile, and now and then for
/// longer than dms-mount believes in it.
fn exports(world: &World, dice: &mut Dice) {
    let Some(exports) = world.hub.exports() else { return };
    let _stall = world.stall();
    begin(world, "storage", "away");
    exports.go_away();
    wait(seconds(dice, 5, 200));
    exports.come_back();
    over(world, "storage");
}
