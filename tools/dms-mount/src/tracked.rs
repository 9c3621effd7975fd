//! Targets that are tracked: mounted, on record, or with a PID file.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use dms_wire::Deadline;

use crate::daemon::Identity;
use crate::inventory;
use crate::mountinfo::Mount;
use crate::node::Node;
use crate::process::Usage;

/// One of them, and what is known of its daemon.
#[derive(Default)]
pub(crate) struct Tracked {
    pub(crate) kind: Option<&'static str>,
    pub(crate) pid: Option<i32>,
    pub(crate) is_alive: bool,
    pub(crate) path: Option<String>,
    pub(crate) mount: Option<Mount>,
    /// The secret's reference, or the export.
    pub(crate) reference: Option<String>,
    pub(crate) storage: Option<String>,
}

impl Tracked {
    /// What the daemon needs of this machine, if it lives.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let up = Duration::try_from_secs_f64(Deadline::after(Duration::ZERO).seconds());
        Usage::of(self.pid.filter(|_| self.is_alive)?, up.unwrap_or_default())
    }
}

/// All of them, or the one that is named.
pub(crate) fn look(node: &Node, only: Option<&str>) -> io::Result<BTreeMap<String, Tracked>> {
    let mut all: BTreeMap<String, Tracked> = BTreeMap::new();
    for (target, pid) in node.run_dir.pid_files() {
        all.entry(target.to_string()).or_default().pid = pid;
    }
    for record in node.run_dir.records() {
        let tracked = all.entry(record.target.to_string()).or_default();
        tracked.kind = Some(record.kind.word());
        tracked.path = Some(record.path.display().to_string());
        tracked.reference = Some(record.source);
        tracked.storage = record.storage;
        if let Some(daemon) = record.daemon {
            tracked.pid = Some(daemon.pid);
            tracked.is_alive = Identity::is_alive(&daemon);
        }
    }
    for entry in inventory::take_what_is_seen(node)? {
        let Some(target) = entry.target.clone() else { continue };
        let tracked = all.entry(target).or_default();
        tracked.kind = Some(entry.kind().word());
        tracked.path = Some(entry.mount.path.display().to_string());
        tracked.mount = Some(entry.mount);
    }
    all.retain(|target, _| only.is_none_or(|only| only == target));
    Ok(all)
}
