//! `list`: what is mounted below the mount bases, one JSON line each, and a last line that says that
//! these were all.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Access, Deadline, TargetType, write_json};
use serde_json::{Value, json};

use crate::inventory::{self, Entry};
use crate::node::Node;
use crate::operate;

pub(crate) fn list(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let entries = inventory::take(node).context("unable to read", "/proc/self/mountinfo")?;
    // Whoever compares what is there with what should be there begins with this list.
    operate::sweep(node, &entries);
    let mounts = entries.iter().map(|entry| line(node, entry));
    // Without it, a list that was cut could not be told from one of fewer mounts.
    let end = json!({"host": node.id, "boot": node.boot, "uptime": uptime(),
        "mounts": entries.len()});
    for line in mounts.chain([end]) {
        match write_json(&mut output, &line) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            written => written.context("unable to write", "stdout")?,
        }
    }
    Ok(Exit::Done)
}

fn line(node: &Node, entry: &Entry) -> Value {
    let mount = &entry.mount;
    json!({
        "host": node.id,
        "boot": node.boot,
        "uptime": uptime(),
        "target": entry.target,
        "type": entry.target.as_ref().map(|_| entry.kind().word()),
        "path": mount.path.to_string_lossy(),
        "source": mount.source,
        "secret_ref": entry.source(TargetType::S3),
        "export": entry.source(TargetType::Nfs).or(entry.source(TargetType::Zfs)),
        "storage": entry.storage(),
        "access": entry.access.map(Access::word),
        "fstype": mount.fstype,
        "device": mount.device,
        "mount_id": mount.id,
        "pid": entry.daemon().map(|daemon| daemon.pid),
    })
}

/// How long this boot has been going on, in seconds.
fn uptime() -> f64 {
    Deadline::after(Duration::ZERO).seconds()
}
