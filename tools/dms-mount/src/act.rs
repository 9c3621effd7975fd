//! An act on a target, under its lock: what is known of the target, and whose mount is whose.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dms_flock::Lock;
use dms_wire::{Deadline, ErrorCode, Secret, TargetId};

use crate::daemon::{self, Identity};
use crate::failed::Failed;
use crate::mountinfo::{Mount, Mounts};
use crate::nfs::{self, Export};
use crate::node::Node;
use crate::place::Place;
use crate::probe::{self, Depth, Health, Trial};
use crate::record::Record;
use crate::s3;

/// An act under its lock: which target, where, how long, and which mounts there were.
pub(crate) struct Act<'a> {
    pub(crate) node: &'a Node,
    pub(crate) target: &'a TargetId,
    /// For the key manager.
    pub(crate) token: Option<&'a Secret>,
    /// No job asks: what is mounted again was mounted before.
    pub(crate) is_settling: bool,
    pub(crate) place: Place,
    pub(crate) until: Deadline,
    pub(crate) mounts: Arc<Mounts>,
    /// What the node remembered of the target when the act began.
    pub(crate) before: Option<Record>,
    /// The export that the request names, if it does.
    pub(crate) export: Option<Export>,
    /// How the mount is, asked before all else was read.
    pub(crate) trial: Cell<Option<Trial>>,
    /// Held until the act is over; mount(8) and umount(8) inherit it.
    pub(crate) lock: Lock,
}

impl Act<'_> {
    /// Tries a mount; it may have been asked already.
    pub(crate) fn health(
        &self,
        mount: &Mount,
        depth: Depth,
        bound: Duration,
    ) -> io::Result<Health> {
        match self.trial.take().filter(|trial| trial.is_of(mount, depth)) {
            Some(trial) => trial.end(bound),
            None => probe::health(mount, depth, bound),
        }
    }

    /// What the node remembers of the target now.
    pub(crate) fn record(&self) -> Option<Record> {
        self.node.run_dir.load(self.target)
    }

    /// Whether the mount is the target's own: it says so, or we remember having made it, or it is
    /// of the export that was asked for.
    pub(crate) fn is_ours(&self, mount: &Mount) -> Result<bool, Failed> {
        Ok(s3::is_marked(mount, self.target)
            || self.record().is_some_and(|record| record.has_made(mount))
            || self.is_of_export(mount)
            || self.has_daemon_at(mount)?)
    }

    /// Two targets may have one export, and still not one mount.
    fn is_of_export(&self, mount: &Mount) -> bool {
        let is_asked_for = mount.path == self.place.path()
            && self.export.as_ref().is_some_and(|export| nfs::is_of(mount, export));
        let is_of_another =
            |record: &Record| record.target != *self.target && record.has_made(mount);
        is_asked_for && !self.node.run_dir.records().iter().any(is_of_another)
    }

    /// The daemon of the target's mount: as recorded; or else as its environment says, ours or the
    /// Python server's; or as the PID file says, if that is true. Where nobody can look, it is not
    /// said that there is none: it may have somebody's data.
    pub(crate) fn daemon(&self) -> Result<Option<Identity>, Failed> {
        let path = self.place.path();
        // One of a mount elsewhere is none of this place's.
        let recorded = self.record().filter(|record| record.path == path);
        let recorded = recorded.and_then(|record| record.daemon);
        if let Some(daemon) = recorded.filter(Identity::is_alive) {
            return Ok(Some(daemon));
        }
        match s3::find_own_daemon(self.target, path).map_err(|why| cannot_look(&why))? {
            Some(daemon) => Ok(Some(daemon)),
            None => self.strange_daemon(),
        }
    }

    /// The same, but for one that we have started.
    pub(crate) fn strange_daemon(&self) -> Result<Option<Identity>, Failed> {
        let path = self.place.path();
        // Where there is no directory, nobody else has mounted.
        if self.mounts.at(path).is_some() || self.place.is_there()? {
            let found = s3::find_their_daemon(path).map_err(|why| cannot_look(&why))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        match self.node.run_dir.pid_in_file(self.target) {
            Some(pid) => daemon::serving(path, pid).map_err(|why| cannot_look(&why)),
            None => Ok(None),
        }
    }

    /// Whether the daemon is one that we have started for this place, and nobody else's.
    pub(crate) fn has_started(&self, daemon: &Identity) -> Result<bool, Failed> {
        let path = self.place.path();
        let record = self.record().filter(|record| record.path == path);
        if record.and_then(|record| record.daemon).as_ref() == Some(daemon) {
            return Ok(true);
        }
        let own = s3::find_own_daemon(self.target, path).map_err(|why| cannot_look(&why))?;
        Ok(own.as_ref() == Some(daemon))
    }

    /// Ends a daemon that was being started when its starter died: no job was told of it. False: it
    /// does not end.
    pub(crate) fn end_leftover(&self, daemon: &Identity) -> bool {
        let (pid, target) = (daemon.pid, self.target);
        log::warn!("pid {pid} was being started for {target} and left alone: ending it");
        daemon.kill(Duration::from_secs(5))
    }

    /// A program that does not let its mount be marked: then its daemon tells.
    fn has_daemon_at(&self, mount: &Mount) -> Result<bool, Failed> {
        Ok(mount.fstype.starts_with("fuse")
            && !mount.source.starts_with("dms:")
            && mount.path == self.place.path()
            && self.daemon()?.is_some())
    }
}

/// A look at the processes of the host that came to nothing.
pub(crate) fn cannot_look(why: &io::Error) -> Failed {
    Failed::system(ErrorCode::Internal, "unable to look at the processes of this host", why)
}

pub(crate) fn read_mounts() -> Result<Arc<Mounts>, Failed> {
    Mounts::read().map_err(|why| {
        Failed::system(ErrorCode::Internal, "unable to read /proc/self/mountinfo", &why)
    })
}
