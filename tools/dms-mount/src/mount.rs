//! Mount: make sure that the target is there, whoever else uses it.

use std::fs::File;
use std::time::Duration;

use dms_wire::{ErrorCode, MountPath, Response, TargetType};

use crate::act::{Act, read_mounts};
use crate::ended;
use crate::failed::Failed;
use crate::join::{adopt, foreign, is_usable, refuse_other, refuse_second_path};
use crate::mountinfo::is_mount_point;
use crate::nfs;
use crate::record::{Record, State};
use crate::s3;
use crate::source::Source;
use crate::umount::{detach, detach_if_mounted, who_is_gone};
use crate::unmount::clean_up;

/// How long a daemon that is there may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts the target, or finds it mounted and alive.
pub(crate) fn mount(act: &Act<'_>, source: &Source, path: &MountPath) -> Result<Response, Failed> {
    // That of a pool was put away.
    let record = act.before.as_ref().filter(|record| record.kind != TargetType::Zfs);
    if let Some(record) = record {
        refuse_second_path(act, record)?;
    }
    let found = act.mounts.at(act.place.path());
    if let Some(found) = found {
        if !act.is_ours(found)? {
            return Err(foreign(found));
        }
        // Looked up once: it asks for the daemon.
        let known = record.filter(|record| record.is_of(found));
        if is_usable(act, found, known.is_some())? {
            if known.is_none_or(|known| !source.is_bucket_of(known)) {
                let storage = refuse_other(act, found, source, record)?;
                adopt(act, found, source.kind(), source.as_str(), storage, record)?;
            }
            return Ok(mounted(source.kind(), path, true));
        }
    }
    let has_ended = ended::take(act).map_err(|why| {
        Failed::system(
            ErrorCode::Mount,
            "Mount failed: unable to use the file of the act lock",
            &why,
        )
    })?;
    if found.is_some() {
        let gone = who_is_gone(source.kind());
        log::warn!("the {gone} of {} is gone: mounting {path} anew", act.target);
        detach(act, ErrorCode::Mount)?;
    } else {
        clear_the_way(act, record, has_ended)?;
    }
    start(act, source, record.filter(|record| record.path == act.place.path()))?;
    Ok(mounted(source.kind(), path, false))
}

/// In the words of the Python server.
fn mounted(kind: TargetType, path: &MountPath, reused: bool) -> Response {
    let text = match (kind, reused) {
        (TargetType::Nfs, true) => format!("Already mounted at {path}"),
        (TargetType::Nfs, false) => format!("NFS target mounted successfully at {path}"),
        (_, true) => format!("S3 target already mounted at {path}"),
        (_, false) => format!("S3 target mounted successfully at {path}"),
    };
    Response {
        mount_path: Some(path.to_string()),
        physically_mounted: Some(!reused),
        reused_existing: Some(reused),
        ..Response::success(text)
    }
}

/// The record of a mount that is about to be made.
pub(crate) fn new_record(act: &Act<'_>, kind: TargetType, source: &str) -> Record {
    Record {
        target: act.target.clone(),
        kind,
        path: act.place.path().to_owned(),
        source: source.to_owned(),
        options: None,
        storage: None,
        guid: None,
        state: State::Starting,
        made_dir: false,
        mount_id: None,
        device: None,
        mounted_as: None,
        sealed: false,
        daemon: None,
    }
}

/// Nothing is mounted, but a daemon may be: one that still sends its data must not be disturbed,
/// one that was being started when its starter died must not mount over ours. `has_ended`: the last one
/// of ours is known to have ended.
fn clear_the_way(act: &Act<'_>, record: Option<&Record>, has_ended: bool) -> Result<(), Failed> {
    let is_gone = has_ended && record.is_none();
    let daemon = if is_gone { act.strange_daemon()? } else { act.daemon()? };
    let Some(daemon) = daemon else { return Ok(()) };
    let was_starting = record.is_some_and(|record| record.state == State::Starting);
    if was_starting && act.has_started(&daemon)? {
        if act.end_leftover(&daemon) {
            // It may have mounted just before.
            return detach_if_mounted(act, ErrorCode::Mount);
        }
    } else if daemon.wait_for_end(PATIENCE.min(act.until.left())) {
        return Ok(());
    }
    let text = format!("{} is busy: still flushing, pid {}", act.target, daemon.pid);
    Err(Failed::new(ErrorCode::Busy, text))
}

/// A mount that failed.
pub(crate) enum Left {
    /// What was made for it can be taken away.
    Nothing(Failed),
    /// Somebody who could not be ended may mount it yet, and has the act lock until then.
    OnItsWay(Failed),
}

impl From<Failed> for Left {
    fn from(why: Failed) -> Self {
        Left::Nothing(why)
    }
}

/// Mounts it and sees it work; on any failure nothing is left of it.
fn start(act: &Act<'_>, source: &Source, before: Option<&Record>) -> Result<(), Failed> {
    let mut record = Record {
        made_dir: before.is_some_and(|before| before.made_dir),
        sealed: before.is_some_and(|before| before.sealed),
        ..new_record(act, source.kind(), source.as_str())
    };
    let outcome = match source {
        Source::S3 { secret_ref } => {
            let ready = s3::get_ready(act, secret_ref)?;
            record.storage = Some(ready.credentials.storage());
            prepare(act, &mut record)
                .and_then(|_held| s3::launch(act, &ready, &mut record))
                .map_err(Left::from)
        }
        Source::Nfs { export, options } => {
            nfs::check_installed()?;
            record.options = Some(options.to_list(&act.node.nfs));
            prepare(act, &mut record)
                .map_err(Left::from)
                .and_then(|_held| nfs::launch(act, export, options, &mut record))
        }
    };
    outcome.map_err(|left| match left {
        Left::Nothing(why) => {
            clean_up(act, Some(&record));
            why
        }
        Left::OnItsWay(why) => why,
    })
}

/// The record, and then the mount point: should we die in between or right after, both are known
/// for what they are. While the result lives, nobody else mounts there.
fn prepare(act: &Act<'_>, record: &mut Record) -> Result<File, Failed> {
    record.made_dir |= !act.place.is_there()?;
    save(act, record)?;
    act.place.make()?;
    let path = act.place.path().display();
    let Some(held) = act.place.lock()? else {
        // Theirs to remove, too.
        record.made_dir = false;
        let text = format!("another target is just being mounted at {path}");
        return Err(Failed::new(ErrorCode::Busy, text));
    };
    let may_be_mounted = is_mount_point(act.place.path()) != Some(false);
    let mounts = may_be_mounted.then(read_mounts).transpose()?;
    if let Some(found) = mounts.as_ref().and_then(|mounts| mounts.at(act.place.path())) {
        record.made_dir = false;
        return Err(foreign(found));
    }
    if !act.place.is_empty()? {
        let text =
            format!("Mount failed: {path} is not empty: mounting over it would hide its files");
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    // Said before it is done: a seal that nobody knows of would stay.
    record.sealed = true;
    save(act, record)?;
    act.place.seal(&held);
    Ok(held)
}

pub(crate) fn save(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    act.node.run_dir.save(record).map_err(|why| {
        Failed::system(ErrorCode::Mount, "Mount failed: unable to write the mount's record", &why)
    })
}
