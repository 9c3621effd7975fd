//! Files that somebody removes or overwrites: locks that nobody holds, and numbers of processes.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dms_tests::Dice;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use super::pick;
use crate::node::Node;
use crate::target;
use crate::world::World;

/// Each lock file that can be taken at once is taken and removed, and then let go.
pub(super) fn remove_locks(world: &World, dice: &mut Dice) {
    let mut nodes: Vec<&Node> = world.nodes.iter().collect();
    nodes.push(&world.controller);
    let Some(node) = pick(dice, &nodes) else { return };
    world.hub.history.note("fault", json!({"fault": "locks", "node": node.name}));
    let mut removed = 0;
    for dir in ["lock", "dms/act"] {
        let dir = node.inside(dir);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                removed += u32::from(remove_if_free(&path));
            }
        }
    }
    let fields = json!({"fault": "locks", "node": node.name, "removed": removed});
    world.hub.history.note("fault-over", fields);
}

fn remove_if_free(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let Ok(held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return false };
    let is_it = held.metadata().ok().zip(fs::metadata(path).ok());
    // Somebody may have removed it before us, and somebody made it anew.
    is_it.is_some_and(|(held, there)| held.ino() == there.ino()) && fs::remove_file(path).is_ok()
}

/// What a PID file may say after somebody was at it.
const SPOILED: [&str; 6] = ["garbage\n", "1\n", "-1\n", "", "4194304\n", "2\n"];

pub(super) fn spoil_pid(world: &World, dice: &mut Dice) {
    let Some(node) = pick(dice, &world.nodes) else { return };
    let buckets: Vec<String> = target::buckets(&world.hub.options).collect();
    let Some(target) = pick(dice, &buckets) else { return };
    let Some(text) = pick(dice, &SPOILED) else { return };
    let path: PathBuf = node.inside("dms/s3").join(format!("{target}.pid"));
    // Where there is none, the target is not mounted.
    if path.exists() {
        let fields = json!({"fault": "pids", "node": node.name, "target": target, "text": text});
        world.hub.history.note("fault", fields);
        let _ = fs::write(path, text);
    }
}
