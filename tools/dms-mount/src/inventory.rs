//! What is mounted below the mount bases, and what the node remembers of it.

use std::io;

use dms_wire::{TargetId, TargetType};

use crate::daemon::Identity;
use crate::mountinfo::{Mount, Mounts};
use crate::nfs;
use crate::node::Node;
use crate::record::Record;
use crate::s3;

/// A mount below a base.
pub(crate) struct Entry {
    pub(crate) mount: Mount,
    /// The target that it is of; none: somebody else's.
    pub(crate) target: Option<String>,
    /// Its record, if there is one.
    pub(crate) record: Option<Record>,
}

impl Entry {
    /// What the target is of: as recorded, or else as its mount looks.
    pub(crate) fn kind(&self) -> TargetType {
        let recorded = self.record.as_ref().map(|record| record.kind);
        recorded.unwrap_or(if nfs::is_nfs(&self.mount) { TargetType::Nfs } else { TargetType::S3 })
    }

    /// What the node remembers to have mounted, if it is of this type.
    pub(crate) fn source(&self, kind: TargetType) -> Option<&str> {
        let record = self.record.as_ref().filter(|record| record.kind == kind);
        record.map(|record| record.source.as_str())
    }

    /// The mount's daemon, if it is known and runs.
    pub(crate) fn daemon(&self) -> Option<&Identity> {
        let daemon = self.record.as_ref().and_then(|record| record.daemon.as_ref());
        daemon.filter(|daemon| daemon.is_alive())
    }
}

/// All of them, in the order in which they were mounted.
pub(crate) fn take(node: &Node) -> io::Result<Vec<Entry>> {
    let mounts = Mounts::read()?;
    let records = node.run_dir.records();
    let mut entries = Vec::new();
    for base in &node.bases {
        let base = std::fs::canonicalize(base).unwrap_or_else(|_| base.clone());
        // The base itself may be a mount: a volume for the mount points.
        for mount in mounts.below(&base).filter(|mount| mount.path != base) {
            entries.push(entry(mount, &records));
        }
    }
    Ok(entries)
}

fn entry(mount: &Mount, records: &[Record]) -> Entry {
    let marked = s3::target_of(mount).filter(|id| TargetId::try_from(id.clone()).is_ok());
    let record = records.iter().find(|record| match &marked {
        Some(id) => record.target.as_str() == id && record.path == mount.path,
        None => record.has_made(mount),
    });
    let recorded = record.map(|record| record.target.to_string());
    Entry { mount: mount.clone(), target: marked.or(recorded), record: record.cloned() }
}
