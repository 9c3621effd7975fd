//! `list`: what is mounted below the mount bases, one JSON line each.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Deadline, TargetId, write_json};
use serde_json::json;

use crate::daemon::Identity;
use crate::mountinfo::Mounts;
use crate::node::Node;
use crate::s3;

pub(crate) fn list(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let mounts = Mounts::read().context("unable to read", "/proc/self/mountinfo")?;
    for base in &node.bases {
        let base = std::fs::canonicalize(base).unwrap_or_else(|_| base.clone());
        // The base itself may be a mount: a volume for the mount points.
        for mount in mounts.below(&base).filter(|mount| mount.path != base) {
            let target = s3::target_of(mount);
            let id = target.clone().and_then(|id| TargetId::try_from(id).ok());
            let record = id.and_then(|id| node.run_dir.load(&id));
            let record = record.filter(|record| record.path == mount.path);
            let daemon = record.as_ref().and_then(|record| record.daemon.as_ref());
            let line = json!({
                "host": node.id,
                "boot": node.boot,
                "uptime": Deadline::after(Duration::ZERO).seconds(),
                "target": target,
                "type": target.as_ref().map(|_| "s3"),
                "path": mount.path.to_string_lossy(),
                "source": mount.source,
                "secret_ref": record.as_ref().map(|record| &record.source),
                "fstype": mount.fstype,
                "device": mount.device,
                "mount_id": mount.id,
                "pid": daemon.filter(|daemon| Identity::is_alive(daemon)).map(|daemon| daemon.pid),
            });
            match write_json(&mut output, &line) {
                Err(why) if why.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
                written => written.context("unable to write", "stdout")?,
            }
        }
    }
    Ok(Exit::Done)
}
