//! The run directory: what this node remembers of each mount, its daemon's number and words, the
//! credentials of what is mounted, and the last fence.
//!
//! It lies on a tmpfs, and may be lost while mounts live: the kernel is the truth, and what is
//! remembered only says more about it. Every file is replaced whole, but for the fences (`fence.rs`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dms_flock::make_dir;
use dms_wire::{Secret, TargetId};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::drain;
use crate::record::{Record, State};

/// The run directory.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes what is missing of it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        for part in ["act", "fence", "mounts", "pool", "s3"] {
            make_dir(&path.join(part))?;
        }
        Ok(RunDir { path: path.to_owned() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether records can be written.
    pub(crate) fn try_writing(&self) -> io::Result<()> {
        // No target has this id.
        let file = self.path.join("mounts").join(".check");
        fs::write(&file, "dms-mount check\n").and_then(|()| fs::remove_file(&file))
    }

    /// The lock around every act on the target.
    pub(crate) fn act_lock(&self, target: &TargetId) -> PathBuf {
        self.path.join("act").join(format!("{target}.lock"))
    }

    /// The lock around every act on the pool.
    pub(crate) fn pool_lock(&self, pool: &str) -> PathBuf {
        self.path.join("pool").join(format!("{pool}.lock"))
    }

    /// The last plans that were acted on.
    pub(crate) fn fence(&self, target: &TargetId) -> PathBuf {
        self.path.join("fence").join(target.as_str())
    }

    /// The number of the daemon's process, for people and scripts.
    pub(crate) fn pid_file(&self, target: &TargetId) -> PathBuf {
        self.path.join("s3").join(format!("{target}.pid"))
    }

    /// What the daemon says.
    pub(crate) fn daemon_log(&self, target: &TargetId) -> PathBuf {
        self.path.join("s3").join(format!("{target}.log"))
    }

    /// What the target was mounted with, so that it can be mounted again without a token.
    fn credentials(&self, target: &TargetId) -> PathBuf {
        self.path.join("s3").join(format!("{target}.cred"))
    }

    /// Keeps them, and where they are from, until the unmount; only where they are in memory, and
    /// gone with the machine.
    pub(crate) fn keep_credentials(
        &self,
        target: &TargetId,
        source: &str,
        payload: &Secret,
    ) -> io::Result<()> {
        if statfs(&self.path)?.filesystem_type() != TMPFS_MAGIC {
            log::debug!("{} is no tmpfs: no credentials are kept", self.path.display());
            return Ok(());
        }
        let text = Secret::new(format!("{source}\n{}", payload.reveal()));
        replace(&self.credentials(target), text.reveal().as_bytes(), 0o600)
    }

    /// Those that were kept, if they are from there.
    pub(crate) fn kept_credentials(&self, target: &TargetId, source: &str) -> Option<Secret> {
        let text = Secret::new(fs::read_to_string(self.credentials(target)).ok()?);
        let (from, payload) = text.reveal().split_once('\n')?;
        (from == source).then(|| Secret::new(payload))
    }

    /// Nobody is going to mount it again.
    pub(crate) fn drop_credentials(&self, target: &TargetId) -> io::Result<()> {
        remove(&self.credentials(target))
    }

    fn record(&self, target: &TargetId) -> PathBuf {
        self.path.join("mounts").join(target.as_str())
    }

    /// The record of the target's mount. One that cannot be read is as good as none.
    pub(crate) fn load(&self, target: &TargetId) -> Option<Record> {
        let path = self.record(target);
        let text = fs::read(&path).ok()?;
        let record = serde_json::from_slice(&text);
        if let Err(why) = &record {
            log::warn!("unable to read {}: {why}", path.display());
        }
        record.ok()
    }

    /// All records that can be read.
    pub(crate) fn records(&self) -> Vec<Record> {
        let files = fs::read_dir(self.path.join("mounts")).into_iter().flatten().flatten();
        // One that is just being written begins with a dot, as no id does.
        let ids =
            files.filter_map(|file| TargetId::try_from(file.file_name().into_string().ok()?).ok());
        let mut records: Vec<Record> = ids.filter_map(|id| self.load(&id)).collect();
        records.sort_by(|a, b| a.target.as_str().cmp(b.target.as_str()));
        records
    }

    /// The targets that have a PID file.
    pub(crate) fn tracked(&self) -> Vec<TargetId> {
        let files = fs::read_dir(self.path.join("s3")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let ids =
            names.filter_map(|name| TargetId::try_from(name.strip_suffix(".pid")?.to_owned()).ok());
        let mut found: Vec<TargetId> = ids.collect();
        found.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        found
    }

    /// The same, and the number in it, if it is one.
    pub(crate) fn pid_files(&self) -> Vec<(TargetId, Option<i32>)> {
        let numbered = |id: TargetId| {
            let pid = self.pid_in_file(&id);
            (id, pid)
        };
        self.tracked().into_iter().map(numbered).collect()
    }

    /// The targets of which an unmount could not remove all, or has not yet, and where each was: a record
    /// that says so, or files without a record.
    pub(crate) fn left_over(&self) -> Vec<(TargetId, Option<Record>)> {
        /// What a target may have beside its record, the longer name before the one in it.
        const ENDS: [&str; 4] = [".pid", ".cred", ".log.1", ".log"];
        let files = fs::read_dir(self.path.join("s3")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let ids = names.filter_map(|name| {
            let id = ENDS.iter().find_map(|end| name.strip_suffix(end))?;
            TargetId::try_from(id.to_owned()).ok()
        });
        let on_record = self.records();
        let is_on_record = |id: &TargetId| on_record.iter().any(|record| record.target == *id);
        let mut left: Vec<_> = ids.filter(|id| !is_on_record(id)).map(|id| (id, None)).collect();
        left.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        left.dedup_by(|(a, _), (b, _)| a == b);
        let unmounted = on_record.into_iter().filter(|record| record.state == State::Unmounting);
        left.extend(unmounted.map(|record| (record.target.clone(), Some(record))));
        left
    }

    /// The number in the target's PID file: ours, or one that somebody has put there.
    pub(crate) fn pid_in_file(&self, target: &TargetId) -> Option<i32> {
        let pid = fs::read_to_string(self.pid_file(target)).ok()?.trim().parse().ok();
        // Anybody may have been at it: no process has such a number.
        pid.filter(|pid| *pid > 0)
    }

    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        replace(&self.record(&record.target), &serde_json::to_vec(record)?, 0o644)?;
        match &record.daemon {
            Some(daemon) => replace(
                &self.pid_file(&record.target),
                format!("{}\n", daemon.pid).as_bytes(),
                0o644,
            ),
            None => Ok(()),
        }
    }

    /// Forgets the target's mount: the PID file last, by which `clean` finds what is left.
    pub(crate) fn forget(&self, target: &TargetId) -> io::Result<()> {
        let log = self.daemon_log(target);
        let logs = [drain::earlier(&log), log];
        let (first, last) = ([self.record(target)], [self.pid_file(target)]);
        let mut files = first.iter().chain(&logs).chain(&last);
        files.try_for_each(|file| remove(file))
    }
}

/// What the disk refuses once, it may do when it is asked again.
fn remove(file: &Path) -> io::Result<()> {
    let attempt = || match fs::remove_file(file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    attempt().or_else(|_| attempt())
}

/// Writes a new file beside it and renames it: a reader sees the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // No target id begins with a dot, so no other file has this name.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Half a file is of no use to anybody, least of all where there is no room.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use dms_wire::TargetType;
    use serde_json::json;

    use super::*;
    use crate::daemon::Identity;
    use crate::mountinfo::Mount;
    use crate::record::State;

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::open(dir.path()).expect("it can be written");
        (dir, run)
    }

    #[test]
    fn an_nfs_mount_is_known_by_its_export_and_one_seen_working_by_its_number_too() {
        let record: Record = serde_json::from_value(json!({
            "target": "t", "type": "nfs", "path": "/m/t", "source": "NAS:/e", "state": "mounted",
            "made_dir": true, "mount_id": 7, "device": "0:44", "daemon": null,
        }))
        .expect("a record");
        let mount = |id, fstype: &str, source: &str| Mount {
            id,
            device: "0:44".into(),
            path: "/m/t".into(),
            fstype: fstype.into(),
            source: source.into(),
        };
        assert!(record.is_of(&mount(7, "nfs4", "nas:/e")));
        let other = mount(8, "nfs", "nas:/e/");
        assert!(record.has_made(&other) && !record.is_of(&other));
        assert!(!record.has_made(&mount(7, "nfs", "nas:/f")));
        assert!(!record.has_made(&mount(7, "ext4", "nas:/e")));
        assert!(!record.has_made(&Mount { path: "/m/u".into(), ..mount(7, "nfs", "nas:/e") }));
    }

    #[test]
    fn a_record_is_kept_and_forgotten_with_its_pid_file() {
        let (_dir, run) = run_dir();
        let target = TargetId::try_from("t".to_owned()).expect("a valid id");
        let record = Record {
            target: target.clone(),
            kind: TargetType::S3,
            path: "/m/t".into(),
            source: "file:///s".into(),
            options: None,
            storage: None,
            guid: None,
            state: State::Mounted,
            made_dir: true,
            mount_id: Some(7),
            device: Some("0:44".into()),
            mounted_as: None,
            sealed: false,
            daemon: Some(Identity { pid: 12, start: 34, boot: "b".into() }),
        };
        run.save(&record).expect("it can be written");
        assert_eq!(fs::read_to_string(run.pid_file(&target)).expect("it is there"), "12\n");
        let loaded = run.load(&target).expect("it is there");
        assert_eq!((loaded.mount_id, loaded.daemon), (record.mount_id, record.daemon));
        run.forget(&target).expect("it can be removed");
        assert!(run.load(&target).is_none() && !run.pid_file(&target).exists());
        run.forget(&target).expect("nothing to do");
    }
}
