//! `list`: what is mounted below the mount bases, one JSON line each.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Deadline, TargetType, write_json};
use serde_json::json;

use crate::inventory;
use crate::node::Node;

pub(crate) fn list(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let entries = inventory::take(node).context("unable to read", "/proc/self/mountinfo")?;
    for entry in entries {
        let mount = &entry.mount;
        let line = json!({
            "host": node.id,
            "boot": node.boot,
            "uptime": Deadline::after(Duration::ZERO).seconds(),
            "target": entry.target,
            "type": entry.target.as_ref().map(|_| entry.kind().word()),
            "path": mount.path.to_string_lossy(),
            "source": mount.source,
            "secret_ref": entry.source(TargetType::S3),
            "export": entry.source(TargetType::Nfs),
            "fstype": mount.fstype,
            "device": mount.device,
            "mount_id": mount.id,
            "pid": entry.daemon().map(|daemon| daemon.pid),
        });
        match write_json(&mut output, &line) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            written => written.context("unable to write", "stdout")?,
        }
    }
    Ok(Exit::Done)
}
