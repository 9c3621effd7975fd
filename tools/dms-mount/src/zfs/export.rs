//! Export: as soon as nobody uses the pool, and never under somebody who does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dms_wire::{Deadline, ErrorCode, MountPath, Response, TargetType, UnmountMethod};

use super::{Imported, Pool, Tools, at, bare, datasets, lock_pool, tools};
use crate::act::{Act, cannot_look, read_mounts};
use crate::child::Outcome;
use crate::failed::Failed;
use crate::mountinfo::Mounts;
use crate::record::State;
use crate::scan;
use crate::umount::{OnBusy, in_use_by, note};
use crate::unmount::{clean_up, unmounted};

/// How long somebody may still have files open: a job that just ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Exports the target's pool, if it is imported.
///
/// `said`: the pool, where the request or the plan says it.
pub(crate) fn export(
    act: &Act<'_>,
    path: &MountPath,
    said: Option<&str>,
) -> Result<Response, Failed> {
    let record = act.record().filter(|record| record.path == act.place.path());
    let known = record.as_ref().map(|record| record.source.as_str()).or(said);
    let _held = match known.map(Pool::parse) {
        Some(Ok(pool)) => Some(lock_pool(act, &pool)?),
        _ => None,
    };
    let tools = Tools::find(ErrorCode::Unmount)?;
    let imported = tools.list(act.until, ErrorCode::Unmount)?;
    let found = at(&imported, act.place.path());
    let mut taken = None;
    if let Some(found) = found {
        let guid = record.as_ref().and_then(|record| record.guid.as_ref());
        if known.is_some_and(|known| known != found.name)
            || guid.is_some_and(|it| *it != found.guid)
        {
            let text = format!(
                "Unmount failed: another pool, {} with guid {}, is imported at {path}",
                found.name, found.guid
            );
            return Err(Failed::new(ErrorCode::Unmount, text));
        }
        note(act, record.as_ref(), State::Unmounting);
        let outcome = take_away(act, &tools, found, &ErrorCode::Unmount);
        if outcome.as_ref().is_err_and(|why| why.code != ErrorCode::Timeout) {
            note(act, record.as_ref(), State::Mounted);
        }
        taken = Some(outcome?);
    }
    clean_up(act, record.as_ref());
    let text = match found {
        Some(_) => format!("ZFS pool exported successfully from {path}"),
        None => format!("Target not mounted at {path}"),
    };
    Ok(unmounted(path, taken, text))
}

/// Exports it, and sees that it is gone. While it is in use it is tried again, for a while; by force
/// only if the operator has said so.
pub(super) fn take_away(
    act: &Act<'_>,
    tools: &Tools,
    pool: &Imported,
    code: &ErrorCode,
) -> Result<UnmountMethod, Failed> {
    let policy = act.node.policy;
    let end = Deadline::after(PATIENCE.min(policy.step)).min(act.until);
    let before = read_mounts()?;
    let why = loop {
        match attempt(act, tools, pool, &before, &[], code) {
            Ok(()) => {
                remove_mount_points(act, &before, &pool.name);
                return Ok(UnmountMethod::Umount);
            }
            Err(why) if why.code != ErrorCode::Busy || end.passed() => break why,
            Err(_) => thread::sleep(PAUSE.min(end.left())),
        }
    };
    if why.code != ErrorCode::Busy || policy.on_busy != Some(OnBusy::Force) {
        return Err(why);
    }
    log::warn!("{why}");
    attempt(act, tools, pool, &before, &["-f"], code)?;
    remove_mount_points(act, &before, &pool.name);
    Ok(UnmountMethod::Force)
}

/// Once. What zpool(8) has unmounted before it found that something is in use is mounted again: its
/// jobs go on.
fn attempt(
    act: &Act<'_>,
    tools: &Tools,
    pool: &Imported,
    before: &Mounts,
    flags: &[&str],
    code: &ErrorCode,
) -> Result<(), Failed> {
    if flags.is_empty() {
        // It would begin, and unmount some of it.
        let holders = scan::below(act.place.path()).map_err(|why| cannot_look(&why))?;
        if !holders.is_empty() {
            return Err(busy(pool, &in_use_by(&holders)));
        }
    }
    let mut args = vec![OsStr::new("export")];
    args.extend(flags.iter().map(OsStr::new));
    args.push(pool.name.as_ref());
    let outcome = tools.run(&args, act.until.left(), Some(&act.lock), code)?;
    if at(&tools.list(act.until, ErrorCode::Internal)?, act.place.path()).is_none() {
        return Ok(());
    }
    let Outcome::Ended(ended) = outcome else {
        let text = format!("timeout: export of pool {} did not end in time", pool.name);
        return Err(Failed::new(ErrorCode::Timeout, text));
    };
    let after = read_mounts()?;
    for mount in datasets(act, before, &pool.name) {
        if after.at(&mount.path).is_none() {
            tools.mount_again(&mount.source);
        }
    }
    let words = tools::words(&ended);
    if words.contains("busy") {
        return Err(busy(pool, &format!(": {words}")));
    }
    Err(Failed::new(code.clone(), format!("ZFS export failed: {words}")))
}

fn busy(pool: &Imported, who: &str) -> Failed {
    Failed::new(ErrorCode::Busy, format!("ZFS export failed: pool {} is busy{who}", pool.name))
}

/// The directories that ZFS has made below the altroot for the pool's datasets, and leaves there;
/// never what is in them.
fn remove_mount_points(act: &Act<'_>, before: &Mounts, pool: &str) {
    let place = act.place.path();
    let below = |mount: &&crate::mountinfo::Mount| mount.path != place;
    let mounts = datasets(act, before, pool);
    let mut paths: Vec<PathBuf> =
        mounts.into_iter().filter(below).map(|mount| mount.path.clone()).collect();
    // The directories on the way to them, too.
    let parents: Vec<PathBuf> = paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1).take_while(|path| *path != place))
        .map(Path::to_owned)
        .collect();
    paths.extend(parents);
    bare::remove(paths);
}

/// For `clean`: puts away the record of a pool that is not imported any more.
pub(crate) fn tidy(act: &Act<'_>) -> Result<Option<String>, Failed> {
    let Some(record) = act.record().filter(|record| record.kind == TargetType::Zfs) else {
        return Ok(None);
    };
    let imported = Tools::find(ErrorCode::Unmount)?.list(act.until, ErrorCode::Unmount)?;
    if at(&imported, &record.path).is_some() {
        return Ok(None);
    }
    clean_up(act, Some(&record));
    Ok(Some("its pool is not imported: its record is removed".to_owned()))
}
