//! System calls that fail: strace(1) stands beside a stage for a moment, and answers for the kernel.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dms_tests::Dice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{pick, seconds};
use crate::node::{Found, Node};
use crate::world::World;

/// What may fail, and how, in the ledger's stages and in the one that mounts.
const LEDGER: [(&str, &str); 7] = [
    ("pwrite64", "ENOSPC"),
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("sendto", "EIO"),
    ("recvfrom", "EIO"),
    ("openat", "ENOSPC"),
];
const MOUNT: [(&str, &str); 9] = [
    ("mount", "EIO"),
    ("umount2", "EIO"),
    ("mkdirat", "ENOSPC"),
    ("write", "ENOSPC"),
    ("pwrite64", "ENOSPC"),
    ("rename", "ENOSPC"),
    ("openat", "ENOSPC"),
    ("read", "EIO"),
    ("unlink", "EIO"),
];

pub(super) fn fail(world: &World, dice: &mut Dice) {
    let mut nodes: Vec<&Node> = world.nodes.iter().collect();
    nodes.push(&world.controller);
    let Some(node) = pick(dice, &nodes) else { return };
    let mut stages = node.processes();
    stages.retain(|one| ["plan", "commit", "dms-mount"].contains(&one.kind));
    let Some(stage) = pick(dice, &stages) else { return };
    let calls: &[(&str, &str)] = if stage.kind == "dms-mount" { &MOUNT } else { &LEDGER };
    let Some((call, error)) = pick(dice, calls) else { return };
    // Not the first one only, and not each.
    let which = format!("{}+{}", 1 + dice.below(6), 1 + dice.below(5));
    let time = seconds(dice, 5, 25);
    let fields = json!({"fault": "disk", "node": node.name, "process": stage.kind,
        "pid": stage.pid, "call": call, "error": error, "which": which});
    world.hub.history.note("fault", fields.clone());
    stand_beside(world, stage, &format!("{call}:error={error}:when={which}"), time);
    world.hub.history.note("fault-over", fields);
}

fn stand_beside(world: &World, stage: &Found, inject: &str, time: f64) {
    let call = inject.split(':').next().unwrap_or_default();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &stage.pid.to_string()]);
    strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={inject}")]);
    let strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut strace = strace.expect("strace is there");
    world.rest(time);
    let_go(&mut strace);
}

/// It lets go of whom it traces, unless one of them waits in the kernel for another that it has
/// stopped: it would wait for the first one, then, for ever. When it is killed, the kernel lets go.
fn let_go(strace: &mut Child) {
    let _ = kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGTERM);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end && matches!(strace.try_wait(), Ok(None)) {
        sleep(Duration::from_millis(10));
    }
    let _ = strace.kill();
    let _ = strace.wait();
}
