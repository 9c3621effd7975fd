//! A mount that is there already: whether a job may join it, and how it comes on record.

use dms_wire::{ErrorCode, TargetType};

use crate::act::{Act, read_mounts};
use crate::failed::Failed;
use crate::mount::{PATIENCE, new_record, save};
use crate::mountinfo::Mount;
use crate::nfs::{self, Export, Options};
use crate::probe::{Depth, Health};
use crate::record::{Record, State};
use crate::s3;
use crate::source::Source;

/// Whether what is mounted there works. A hung one is an error: other jobs' data may be in it.
pub(crate) fn is_usable(act: &Act<'_>, found: &Mount, is_known: bool) -> Result<bool, Failed> {
    // One that nobody has seen working yet may still be finding out that it cannot.
    let depth = if is_known { Depth::Daemon } else { Depth::Server };
    let bound = PATIENCE.min(act.until.left());
    let health = act
        .health(found, depth, bound)
        .map_err(|why| Failed::system(ErrorCode::Mount, "unable to probe the mount", &why))?;
    match health {
        // If it went away meanwhile, it was the bare directory that answered.
        Health::Alive => Ok(read_mounts()?.at(&found.path) == Some(found)),
        Health::Gone => Ok(false),
        Health::Hung => Err(hung(act)),
        Health::Covered => Err(covered(act, ErrorCode::Mount)),
    }
}

/// The same target, said to be elsewhere: a job must not be told yes and write into another one.
/// Of S3 it says which bucket it is, if that is known.
pub(crate) fn refuse_other(
    act: &Act<'_>,
    found: &Mount,
    source: &Source,
    record: Option<&Record>,
) -> Result<Option<String>, Failed> {
    match source {
        Source::S3 { secret_ref } => s3::refuse_other_storage(act, found, secret_ref, record),
        Source::Nfs { export, options } => {
            refuse_other_export(act, found, export, options, record).map(|()| None)
        }
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
    let options = options.to_list(&act.node.nfs);
    if record.and_then(|record| record.options.as_ref()).is_some_and(|known| *known != options) {
        log::warn!("target {} is mounted already, with other options than {options}", act.target);
    }
    Ok(())
}

pub(crate) fn refuse_second_path(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    let elsewhere = act.mounts.at(&record.path).filter(|_| record.path != act.place.path());
    match elsewhere {
        Some(mount) if act.is_ours(mount)? => {
            let text = format!("target {} is mounted at {}", act.target, record.path.display());
            Err(Failed::new(ErrorCode::Busy, text))
        }
        _ => Ok(()),
    }
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
    storage: Option<String>,
    record: Option<&Record>,
) -> Result<(), Failed> {
    if record.is_some_and(|record| record.is_of(found)) {
        return Ok(());
    }
    log::warn!("found {} mounted at {} without a record", act.target, found.path.display());
    let mut adopted = Record {
        storage: storage.or_else(|| record?.storage_of(found)),
        options: record.and_then(|record| record.options.clone()),
        state: State::Mounted,
        made_dir: record.is_some_and(|record| record.made_dir),
        sealed: record.is_some_and(|record| record.sealed),
        daemon: act.daemon()?,
        ..new_record(act, kind, source)
    };
    adopted.note(found);
    save(act, &adopted)
}
