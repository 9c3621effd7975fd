//! Import: the pool is there afterwards as it was wanted, or as it was before.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use dms_wire::{Access, ErrorCode, MountPath, Response, TargetType};

use super::{Imported, Tools, Wanted, at, bare, export, is_of, lock_pool, tools};
use crate::act::{Act, read_mounts};
use crate::child::{Ended, Outcome};
use crate::failed::Failed;
use crate::join::foreign;
use crate::mount::{new_record, save};
use crate::record::{Record, State};
use crate::unmount::clean_up;

/// Imports the pool, or finds it imported. Two targets may not have one pool: each would count its
/// own users only.
pub(crate) fn import(act: &Act<'_>, wanted: &Wanted, path: &MountPath) -> Result<Response, Failed> {
    let tools = Tools::find(ErrorCode::Mount)?;
    let _held = lock_pool(act, &wanted.pool)?;
    refuse_second_target(act, wanted)?;
    let imported = tools.list(act.until, ErrorCode::Mount)?;
    if let Some(other) =
        at(&imported, act.place.path()).filter(|it| it.name != wanted.pool.as_str())
    {
        let text = format!("Mount failed: pool {} is imported at {path}", other.name);
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    if let Some(found) = imported.iter().find(|it| it.name == wanted.pool.as_str()) {
        refuse_other(act, wanted, found)?;
        if found.access >= wanted.options.access {
            adopt(act, &tools, found)?;
            return Ok(done(path, found.access, true));
        }
        // Whoever reads there would have it taken away: the ledger lets nobody come here while
        // another job uses it, and who is no job has files open.
        log::info!("pool {} is imported read-only: importing it anew", wanted.pool);
        export::take_away(act, &tools, found, &ErrorCode::Mount)?;
        return begin_anew(act, &tools, wanted).map(|access| done(path, access, false));
    }
    let access = begin(act, &tools, wanted)?;
    Ok(done(path, access, false))
}

/// With more access than it had; if that cannot be, with what it had.
fn begin_anew(act: &Act<'_>, tools: &Tools, wanted: &Wanted) -> Result<Access, Failed> {
    begin(act, tools, wanted).inspect_err(|why| {
        let mut before = wanted.clone();
        before.options.access = Access::ReadOnly;
        if why.code == ErrorCode::Mount
            && let Err(why) = begin(act, tools, &before)
        {
            log::error!("pool {} is not imported any more: {why}", wanted.pool);
        }
    })
}

fn done(path: &MountPath, access: Access, reused: bool) -> Response {
    let text = match reused {
        true => format!("ZFS pool already imported at {path}"),
        false => format!("ZFS pool imported successfully at {path}"),
    };
    Response {
        mount_path: Some(path.to_string()),
        physically_mounted: Some(!reused),
        reused_existing: Some(reused),
        access: Some(access),
        ..Response::success(text)
    }
}

fn refuse_second_target(act: &Act<'_>, wanted: &Wanted) -> Result<(), Failed> {
    let is_same = |record: &Record| {
        record.kind == TargetType::Zfs
            && record.target != *act.target
            && record.source == wanted.pool.as_str()
    };
    match act.node.run_dir.records().into_iter().find(is_same) {
        None => Ok(()),
        Some(other) => {
            let (pool, path) = (&wanted.pool, other.path.display());
            let text = format!("pool {pool} is in use by target {} at {path}", other.target);
            Err(Failed::new(ErrorCode::Busy, text))
        }
    }
}

/// A pool of the name that is not what the target is of, or not where it has to be, or of no use.
fn refuse_other(act: &Act<'_>, wanted: &Wanted, found: &Imported) -> Result<(), Failed> {
    let pool = &found.name;
    let place = act.place.path();
    if found.altroot.as_deref() != Some(place) {
        let at = match &found.altroot {
            Some(altroot) => format!("at {}", altroot.display()),
            None => "without an altroot".to_owned(),
        };
        let text =
            format!("pool {pool} is imported {at}, not at {}; it was not touched", place.display());
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    let recorded = act.record().filter(|record| record.path == place).and_then(|it| it.guid);
    let known = wanted.options.guid.clone().or(recorded);
    if let Some(known) = known.filter(|known| *known != found.guid) {
        let text = format!(
            "Mount failed: another pool {pool} is imported, with guid {}, not {known}",
            found.guid
        );
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    check_health(found)
}

fn check_health(found: &Imported) -> Result<(), Failed> {
    if matches!(found.health.as_str(), "ONLINE" | "DEGRADED") {
        return Ok(());
    }
    let text = format!("Mount failed: pool {} is {}", found.name, found.health);
    Err(Failed::new(ErrorCode::Mount, text))
}

/// From now on a job knows of it, also where its record was lost or its starter died. What died while
/// it imported or exported the pool may have left some of it unmounted: a job would write beside that.
fn adopt(act: &Act<'_>, tools: &Tools, found: &Imported) -> Result<(), Failed> {
    let record = act.record().filter(|record| record.path == act.place.path());
    let before = record.unwrap_or_else(|| {
        log::warn!("found pool {} imported without a record", found.name);
        new_record(act, TargetType::Zfs, &found.name)
    });
    let is_known = before.state == State::Mounted && before.guid.as_ref() == Some(&found.guid);
    if is_known {
        return Ok(());
    }
    if before.state != State::Mounted {
        tools.mount_rest(&found.name)?;
    }
    let mut record = before;
    seal(act, &mut record, found)?;
    (record.state, record.guid) = (State::Mounted, Some(found.guid.clone()));
    save(act, &record)
}

/// Imports it, and sees that it is there as it was wanted; if not, it is as it was before.
fn begin(act: &Act<'_>, tools: &Tools, wanted: &Wanted) -> Result<Access, Failed> {
    let mut record = new_record(act, TargetType::Zfs, wanted.pool.as_str());
    let before = act.record().filter(|record| record.path == act.place.path());
    record.made_dir = before.is_some_and(|before| before.made_dir) || !act.place.is_there()?;
    save(act, &record)?;
    let outcome = make_place(act).and_then(|_held| run_import(act, tools, wanted));
    let ended = match outcome {
        Ok(ended) => ended,
        // It may be imported yet: the record tells whose that will be.
        Err(why) if why.code == ErrorCode::Timeout => return Err(why),
        Err(why) => {
            clean_up(act, Some(&record));
            return Err(why);
        }
    };
    let imported = tools.list(act.until, ErrorCode::Internal)?;
    let Some(found) = imported.iter().find(|it| it.name == wanted.pool.as_str()) else {
        clean_up(act, Some(&record));
        return Err(Failed::new(
            ErrorCode::Mount,
            format!("ZFS import failed: {}", tools::words(&ended)),
        ));
    };
    if let Err(why) = check(act, wanted, found, &ended) {
        // Only what we have just imported ourselves.
        if found.altroot.as_deref() == Some(act.place.path()) {
            let gone = export::take_away(act, tools, found, &ErrorCode::Internal);
            gone.map_err(|left| Failed::new(ErrorCode::Internal, format!("{why}; {left}")))?;
        }
        clean_up(act, Some(&record));
        return Err(why);
    }
    seal(act, &mut record, found)?;
    (record.state, record.guid) = (State::Mounted, Some(found.guid.clone()));
    save(act, &record)?;
    Ok(found.access)
}

/// Keeps what is below its datasets from being written. Said before it is done: a seal that nobody
/// knows of would stay.
fn seal(act: &Act<'_>, record: &mut Record, found: &Imported) -> Result<(), Failed> {
    record.sealed = true;
    save(act, record)?;
    let mounts = read_mounts()?;
    bare::seal_all(act, &mounts, &found.name);
    Ok(())
}

/// The altroot. While the result lives, nobody else mounts there.
fn make_place(act: &Act<'_>) -> Result<std::fs::File, Failed> {
    act.place.make()?;
    if let Some(found) = read_mounts()?.at(act.place.path()) {
        return Err(foreign(found));
    }
    let path = act.place.path().display();
    act.place.lock()?.ok_or_else(|| {
        let text = format!("another target is just being mounted at {path}");
        Failed::new(ErrorCode::Busy, text)
    })
}

/// Returns what zpool(8) has said, whatever it says.
fn run_import(act: &Act<'_>, tools: &Tools, wanted: &Wanted) -> Result<Ended, Failed> {
    log::info!("Importing pool {} for target {}", wanted.pool, act.target);
    let Wanted { pool, options } = wanted;
    let mut args: Vec<OsString> = vec!["import".into()];
    if options.force {
        args.push("-f".into());
    }
    for dir in &options.device_dirs {
        args.extend(["-d".into(), dir.into()]);
    }
    // What the host imports at its boot is not ours to say: another may have the pool by then. And
    // what lies in a backup target gives nobody rights.
    args.extend(["-o", "cachefile=none", "-o", "nosuid,nodev"].map(OsString::from));
    if options.access == Access::ReadOnly {
        args.extend(["-o", "readonly=on"].map(OsString::from));
    }
    args.extend(["-R".into(), act.place.path().into()]);
    args.push(options.guid.as_deref().unwrap_or(pool.as_str()).into());
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    match tools.run(&args, act.until.left(), Some(&act.lock), &ErrorCode::Mount)? {
        Outcome::Ended(ended) => Ok(ended),
        Outcome::Killed | Outcome::Outlives => {
            let text = format!("timeout: import of pool {pool} did not end in time");
            Err(Failed::new(ErrorCode::Timeout, text))
        }
    }
}

/// Whether what was just imported is what was wanted, with its datasets mounted, and all of it below
/// the altroot.
fn check(act: &Act<'_>, wanted: &Wanted, found: &Imported, ended: &Ended) -> Result<(), Failed> {
    refuse_other(act, wanted, found)?;
    if !ended.status.success() {
        // It is there, but a job would write beside a dataset that could not be mounted.
        let text = format!("ZFS import failed: {}", tools::words(ended));
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    if found.access != wanted.options.access {
        let (is, want) = (found.access.name(), wanted.options.access.name());
        let text = format!("ZFS import failed: pool {} is {is}, not {want}", found.name);
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    let mounts = read_mounts()?;
    let root = Path::new("/");
    let astray = mounts
        .below(root)
        .find(|mount| is_of(mount, &wanted.pool) && !mount.path.starts_with(act.place.path()));
    match astray {
        None => Ok(()),
        Some(mount) => {
            let path = mount.path.display();
            let text = format!("ZFS import failed: {} is mounted at {path}", mount.source);
            Err(Failed::new(ErrorCode::Mount, text))
        }
    }
}
