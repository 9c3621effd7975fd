//! The record of a mount: what was mounted for a target, where, and by whom it is served.

use std::path::PathBuf;

use dms_wire::{TargetId, TargetType};
use serde::{Deserialize, Serialize};

use crate::daemon::Identity;
use crate::mountinfo::Mount;
use crate::nfs::{self, Export};
use crate::zfs::{self, Pool};

/// Where a mount stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Its daemon or mount(8) has been, or is just being, started; no job has been told that it is
    /// there.
    Starting,
    /// It is there.
    Mounted,
    /// It has been, or is just being, unmounted; its daemon may still have data to send.
    Unmounting,
}

/// What we know of a mount that is our own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) target: TargetId,
    #[serde(rename = "type")]
    pub(crate) kind: TargetType,
    pub(crate) path: PathBuf,
    /// The export, the pool, or the secret's reference: never the secret.
    pub(crate) source: String,
    /// NFS: the options that it was mounted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) options: Option<String>,
    /// The endpoint and bucket that the secret was of; unknown of a mount that was found.
    #[serde(default)]
    pub(crate) storage: Option<String>,
    /// ZFS: the pool's number: there may be another one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guid: Option<String>,
    pub(crate) state: State,
    /// Whether the mount point was made for it.
    pub(crate) made_dir: bool,
    /// Whether the mount point is immutable below the mount, or just being made so.
    #[serde(default)]
    pub(crate) sealed: bool,
    pub(crate) mount_id: Option<u64>,
    pub(crate) device: Option<String>,
    /// File system type and source, as the kernel has them, or is going to.
    #[serde(default)]
    pub(crate) mounted_as: Option<(String, String)>,
    pub(crate) daemon: Option<Identity>,
}

impl Record {
    /// Whether this is the record of just this mount, seen working.
    pub(crate) fn is_of(&self, mount: &Mount) -> bool {
        self.state == State::Mounted && self.is_same(mount) && self.vouches_for(mount)
    }

    /// Whether this mount, which is alive, is what the record says. The kernel gives a mount the
    /// number of one that is gone: if our daemon has ended, it is somebody else's.
    pub(crate) fn vouches_for(&self, mount: &Mount) -> bool {
        self.has_made(mount) && self.daemon.as_ref().is_none_or(Identity::is_alive)
    }

    /// Whether it was this that was mounted, in whatever state it is. Numbers are used again, so
    /// all of it has to agree. An export is its own mark: whoever has mounted it there, it is what
    /// the target is of.
    pub(crate) fn has_made(&self, mount: &Mount) -> bool {
        if self.kind == TargetType::Zfs {
            let pool = Pool::parse(&self.source);
            let is_below = mount.path.starts_with(&self.path);
            return is_below && pool.is_ok_and(|pool| zfs::is_of(mount, &pool));
        }
        if self.kind == TargetType::Nfs {
            let export = Export::parse(&self.source);
            return self.path == mount.path
                && export.is_ok_and(|export| nfs::is_of(mount, &export));
        }
        let is_new = self.state == State::Starting && self.mount_id.is_none();
        let is_same = self.is_same(mount);
        let Some((fstype, source)) = &self.mounted_as else { return false };
        self.path == mount.path
            && (is_new || is_same)
            && mount.is_of_type(fstype)
            && mount.source == *source
    }

    /// The endpoint and bucket of this mount.
    pub(crate) fn storage_of(&self, mount: &Mount) -> Option<String> {
        self.storage.clone().filter(|_| self.has_made(mount))
    }

    fn is_same(&self, mount: &Mount) -> bool {
        self.mount_id == Some(mount.id) && self.device.as_deref() == Some(&mount.device)
    }

    /// Notes what was mounted.
    pub(crate) fn note(&mut self, mount: &Mount) {
        self.mount_id = Some(mount.id);
        self.device = Some(mount.device.clone());
        self.mounted_as = Some((mount.fstype.clone(), mount.source.clone()));
    }
}
