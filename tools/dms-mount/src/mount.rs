//! Mount: make sure that the target is there, whoever else uses it.

use std::fs::File;
use std::time::Duration;

use dms_wire::{ErrorCode, MountPath, Response, TargetType};

use crate::mountinfo::Mount;
use crate::nfs::{self, Export, Options};
use crate::node::{Act, Failed, read_mounts};
use crate::probe::{self, Depth, Health};
use crate::record::{Record, State};
use crate::s3;
use crate::source::Source;
use crate::umount::{detach, detach_if_mounted, who_is_gone};
use crate::unmount::clean_up;

/// How long a daemon that is there may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts the target, or finds it mounted and alive.
pub(crate) fn mount(act: &Act<'_>, source: &Source, path: &MountPath) -> Result<Response, Failed> {
    let record = act.record();
    if let Some(record) = &record {
        refuse_second_path(act, record)?;
    }
    let found = act.mounts.at(act.place.path());
    if let Some(found) = found {
        if !act.is_ours(found) {
            return Err(foreign(found));
        }
        if is_usable(act, found, record.as_ref())? {
            refuse_other(act, found, source, record.as_ref())?;
            adopt(act, found, source.kind(), source.as_str(), record)?;
            return Ok(mounted(source.kind(), path, true));
        }
    }
    if found.is_some() {
        let gone = who_is_gone(source.kind());
        log::warn!("the {gone} of {} is gone: mounting {path} anew", act.target);
        detach(act, ErrorCode::Mount)?;
    } else {
        clear_the_way(act, record.as_ref())?;
    }
    let before = record.filter(|record| record.path == act.place.path());
    start(act, source, before.as_ref())?;
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

/// Whether what is mounted there works. A hung one is an error: other jobs' data may be in it.
fn is_usable(act: &Act<'_>, found: &Mount, record: Option<&Record>) -> Result<bool, Failed> {
    // One that nobody has seen working yet may still be finding out that it cannot.
    let is_known = record.is_some_and(|record| record.is_of(found));
    let depth = if is_known { Depth::Daemon } else { Depth::Server };
    let bound = PATIENCE.min(act.until.left());
    let health = probe::health(found, depth, bound)
        .map_err(|why| Failed::system(ErrorCode::Mount, "unable to probe the mount", &why))?;
    match health {
        // If it went away meanwhile, it was the bare directory that answered.
        Health::Alive => Ok(read_mounts()?.at(&found.path) == Some(found)),
        Health::Gone => Ok(false),
        Health::Hung => Err(hung(act)),
        Health::Covered => Err(covered(act, ErrorCode::Mount)),
    }
}

pub(crate) fn covered(act: &Act<'_>, code: ErrorCode) -> Failed {
    let what = if code == ErrorCode::Mount { "Mount failed" } else { "Unmount failed" };
    let path = act.place.path().display();
    let text = format!(
        "{what}: the mount of {} at {path} is hidden by another mount; it was not touched",
        act.target
    );
    Failed::new(code, text)
}

pub(crate) fn hung(act: &Act<'_>) -> Failed {
    let path = act.place.path().display();
    let text = format!(
        "timeout: the mount of {} at {path} does not answer; it was not touched",
        act.target
    );
    Failed::new(ErrorCode::Timeout, text)
}

/// From now on a job knows of it: it is on record as mounted, also where its record was lost or
/// its starter died.
pub(crate) fn adopt(
    act: &Act<'_>,
    found: &Mount,
    kind: TargetType,
    source: &str,
    record: Option<Record>,
) -> Result<(), Failed> {
    if record.as_ref().is_some_and(|record| record.is_of(found)) {
        return Ok(());
    }
    log::warn!("found {} mounted at {} without a record", act.target, found.path.display());
    let mut adopted = Record {
        storage: record.as_ref().and_then(|record| record.storage.clone()),
        options: record.as_ref().and_then(|record| record.options.clone()),
        state: State::Mounted,
        made_dir: record.as_ref().is_some_and(|record| record.made_dir),
        sealed: record.is_some_and(|record| record.sealed),
        daemon: act.daemon(),
        ..new_record(act, kind, source)
    };
    adopted.note(found);
    save(act, &adopted)
}

/// The record of a mount that is about to be made.
fn new_record(act: &Act<'_>, kind: TargetType, source: &str) -> Record {
    Record {
        target: act.target.clone(),
        kind,
        path: act.place.path().to_owned(),
        source: source.to_owned(),
        options: None,
        storage: None,
        state: State::Starting,
        made_dir: false,
        mount_id: None,
        device: None,
        mounted_as: None,
        sealed: false,
        daemon: None,
    }
}

/// The same target, said to be elsewhere: a job must not be told yes and write into another one.
fn refuse_other(
    act: &Act<'_>,
    found: &Mount,
    source: &Source,
    record: Option<&Record>,
) -> Result<(), Failed> {
    match source {
        Source::S3 { secret_ref } => s3::refuse_other_storage(act, found, secret_ref, record),
        Source::Nfs { export, options } => refuse_other_export(act, found, export, options, record),
    }
}

fn refuse_other_export(
    act: &Act<'_>,
    found: &Mount,
    export: &Export,
    options: &Options,
    record: Option<&Record>,
) -> Result<(), Failed> {
    if !nfs::is_of(found, export) {
        let text = format!(
            "Mount failed: target {} is mounted from {}, not from {}",
            act.target,
            found.source,
            export.as_str()
        );
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    let options = options.to_list();
    if record.and_then(|record| record.options.as_ref()).is_some_and(|known| *known != options) {
        log::warn!("target {} is mounted already, with other options than {options}", act.target);
    }
    Ok(())
}

fn refuse_second_path(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    let elsewhere = record.path != act.place.path()
        && act.mounts.at(&record.path).is_some_and(|mount| act.is_ours(mount));
    if elsewhere {
        let text = format!("target {} is mounted at {}", act.target, record.path.display());
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    Ok(())
}

pub(crate) fn foreign(found: &Mount) -> Failed {
    let text = format!(
        "Mount failed: {} ({}) is mounted at {}; it was not touched",
        found.source,
        found.fstype,
        found.path.display()
    );
    Failed::new(ErrorCode::Mount, text)
}

/// Nothing is mounted, but a daemon may be: one that still sends its data must not be disturbed,
/// one that was being started when its starter died must not mount over ours.
fn clear_the_way(act: &Act<'_>, record: Option<&Record>) -> Result<(), Failed> {
    let Some(daemon) = act.daemon() else { return Ok(()) };
    let was_starting =
        record.is_some_and(|record| record.state == State::Starting && act.has_started(&daemon));
    if was_starting {
        log::warn!(
            "pid {} was being started for {} and left alone: ending it",
            daemon.pid,
            act.target
        );
        if daemon.kill(Duration::from_secs(5)) {
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
            record.options = Some(options.to_list());
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
    if let Some(found) = read_mounts()?.at(act.place.path()) {
        record.made_dir = false;
        return Err(foreign(found));
    }
    if !act.place.is_empty()? {
        let text =
            format!("Mount failed: {path} is not empty: mounting over it would hide its files");
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    record.sealed = act.place.seal(&held);
    save(act, record)?;
    Ok(held)
}

pub(crate) fn save(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    act.node.run_dir.save(record).map_err(|why| {
        Failed::system(ErrorCode::Mount, "Mount failed: unable to write the mount's record", &why)
    })
}
