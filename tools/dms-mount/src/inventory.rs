//! What is mounted below the mount bases, and what the node remembers of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use dms_wire::{Access, Deadline, ErrorCode, TargetId, TargetType};

use crate::daemon::Identity;
use crate::mountinfo::{Mount, Mounts};
use crate::nfs;
use crate::node::Node;
use crate::record::Record;
use crate::s3;
use crate::zfs::{self, Imported, Tools};

/// A mount below a base.
pub(crate) struct Entry {
    pub(crate) mount: Mount,
    /// The target that it is of; none: somebody else's.
    pub(crate) target: Option<String>,
    /// Its record, if there is one.
    pub(crate) record: Option<Record>,
    /// A pool: how it is imported.
    pub(crate) access: Option<Access>,
}

impl Entry {
    /// What the target is of: as recorded, or else as its mount looks.
    pub(crate) fn kind(&self) -> TargetType {
        let recorded = self.record.as_ref().map(|record| record.kind);
        recorded.unwrap_or(match &self.mount {
            mount if nfs::is_nfs(mount) => TargetType::Nfs,
            mount if zfs::is_zfs(mount) => TargetType::Zfs,
            _ => TargetType::S3,
        })
    }

    /// What the node remembers to have mounted, if it is of this type.
    pub(crate) fn source(&self, kind: TargetType) -> Option<&str> {
        let record = self.record.as_ref().filter(|record| record.kind == kind);
        record.map(|record| record.source.as_str())
    }

    /// S3: the endpoint and bucket, if they are known.
    pub(crate) fn storage(&self) -> Option<String> {
        self.record.as_ref()?.storage_of(&self.mount)
    }

    /// The mount's daemon, if it is known and runs.
    pub(crate) fn daemon(&self) -> Option<&Identity> {
        let daemon = self.record.as_ref().and_then(|record| record.daemon.as_ref());
        daemon.filter(|daemon| daemon.is_alive())
    }
}

/// All of them, in the order in which they were mounted, and then the pools.
pub(crate) fn take(node: &Node) -> io::Result<Vec<Entry>> {
    let mut entries = take_mounts(node)?;
    add_pools(node, &mut entries)?;
    Ok(entries)
}

/// The same for who only looks, and may not be let near /dev/zfs: then a pool is what is mounted of it.
pub(crate) fn take_what_is_seen(node: &Node) -> io::Result<Vec<Entry>> {
    let mut entries = take_mounts(node)?;
    if let Err(why) = add_pools(node, &mut entries) {
        log::warn!("{why}");
    }
    Ok(entries)
}

fn take_mounts(node: &Node) -> io::Result<Vec<Entry>> {
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

/// How long the list of pools may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool is one entry, in the place of those of its datasets; it may have none that are mounted.
/// Where ZFS does not run, nobody is asked, and where nothing says that there is a pool, no answer is
/// as good as none imported.
fn add_pools(node: &Node, entries: &mut Vec<Entry>) -> io::Result<()> {
    let records = node.run_dir.records();
    let is_pool = |record: &Record| record.kind == TargetType::Zfs;
    let is_known =
        records.iter().any(is_pool) || entries.iter().any(|entry| zfs::is_zfs(&entry.mount));
    if !is_known && !zfs::runs() {
        return Ok(());
    }
    let until = Deadline::after(if is_known { PATIENCE } else { PATIENCE / 10 });
    let imported =
        Tools::find(ErrorCode::Internal).and_then(|tools| tools.list(until, ErrorCode::Internal));
    let imported = match imported {
        Ok(imported) => imported,
        Err(why) if is_known => return Err(io::Error::other(why.to_string())),
        Err(why) => {
            log::debug!("{why}");
            return Ok(());
        }
    };
    for pool in imported {
        let Some(altroot) = &pool.altroot else { continue };
        let is_below = node.bases.iter().any(|base| {
            let base = std::fs::canonicalize(base).unwrap_or_else(|_| base.clone());
            altroot.starts_with(&base) && *altroot != base
        });
        if is_below {
            entries.retain(|entry| {
                !(zfs::is_zfs(&entry.mount) && entry.mount.path.starts_with(altroot))
            });
            entries.push(of_pool(&pool, altroot, &records));
        }
    }
    Ok(())
}

fn of_pool(pool: &Imported, altroot: &Path, records: &[Record]) -> Entry {
    let is_its = |record: &&Record| {
        record.kind == TargetType::Zfs && record.path == altroot && record.source == pool.name
    };
    let record = records.iter().find(is_its);
    // What mountinfo would say, if a pool were a mount.
    let (path, source) = (altroot.to_owned(), pool.name.clone());
    let mount = Mount { id: 0, device: String::new(), path, fstype: "zfs".into(), source };
    Entry {
        mount,
        target: record.map(|record| record.target.to_string()),
        record: record.cloned(),
        access: Some(pool.access),
    }
}

fn entry(mount: &Mount, records: &[Record]) -> Entry {
    let marked = s3::target_of(mount).filter(|id| TargetId::try_from(id.clone()).is_ok());
    let record = records.iter().find(|record| match &marked {
        Some(id) => record.target.as_str() == id && record.path == mount.path,
        None => record.has_made(mount),
    });
    let recorded = record.map(|record| record.target.to_string());
    let (target, record) = (marked.or(recorded), record.cloned());
    Entry { mount: mount.clone(), target, record, access: None }
}
