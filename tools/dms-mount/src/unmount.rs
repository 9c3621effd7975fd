//! Unmount: umount first, and wait for the daemon to send what it still has; nothing is killed,
//! unless the operator has said so.

use std::fs;

use dms_wire::{ErrorCode, MountPath, Response, TargetType, UnmountMethod};

use crate::act::{Act, read_mounts};
use crate::daemon::Identity;
use crate::ended;
use crate::failed::Failed;
use crate::join::foreign;
use crate::mountinfo::Mount;
use crate::nfs;
use crate::record::{Record, State};
use crate::s3;
use crate::scan;
use crate::secrets::Secrets;
use crate::umount::{detach_if_mounted, umount};

/// Unmounts the target, if it is mounted; done is when its daemon has ended.
///
/// `said`: its type, where the request says it.
pub(crate) fn unmount(
    act: &Act<'_>,
    path: &MountPath,
    said: Option<TargetType>,
) -> Result<Response, Failed> {
    let record = act.before.as_ref();
    // A record of a mount elsewhere is none of ours to forget.
    let is_elsewhere = record.is_some_and(|record| record.path != act.place.path());
    let record = record.filter(|_| !is_elsewhere);
    let found = act.mounts.at(act.place.path());
    if let Some(found) = found
        && !act.is_ours(found)?
    {
        let why = foreign(found).to_string().replace("Mount failed", "Unmount failed");
        return Err(Failed::new(ErrorCode::Unmount, why));
    }
    let is_nfs = found.is_some_and(nfs::is_nfs);
    let kind = record.map(|record| record.kind).or(is_nfs.then_some(TargetType::Nfs));
    let kind = kind.or(said).unwrap_or(TargetType::S3);
    let (taken, daemon) = take_away(act, kind, found, record)?;
    if !is_elsewhere {
        tell_last_words(act, record);
        // First: whoever finds the rest, should we be killed, would not look for them.
        if let Err(why) = act.node.run_dir.drop_credentials(act.target) {
            log::warn!("unable to remove the credentials of {}: {why}", act.target);
        }
        clean_up(act, record);
        if daemon.is_none_or(|daemon| ended::has_left_nobody(&daemon)) {
            ended::note(act);
        }
    }
    let text = match found {
        Some(_) => format!("Target unmounted successfully from {path}"),
        None => format!("Target not mounted at {path}"),
    };
    Ok(unmounted(path, taken, text))
}

/// The answer where nothing is mounted any more.
pub(crate) fn unmounted(path: &MountPath, taken: Option<UnmountMethod>, text: String) -> Response {
    Response {
        unmounted: Some(true),
        unmount_method: taken,
        mount_path: Some(path.to_string()),
        ..Response::success(text)
    }
}

/// Takes the mount away, if it is there, and waits for its daemon. Says what the mount took, and which
/// daemon it was.
fn take_away(
    act: &Act<'_>,
    kind: TargetType,
    found: Option<&Mount>,
    record: Option<&Record>,
) -> Result<(Option<UnmountMethod>, Option<Identity>), Failed> {
    // Known before anything is touched: it may have data to send.
    let daemon = act.daemon()?;
    let leftover = leftover(act, daemon.as_ref(), record)?;
    let mut taken = None;
    if let Some(leftover) = leftover {
        // There is nothing to flush.
        act.end_leftover(leftover);
        detach_if_mounted(act, ErrorCode::Unmount)?;
    } else if found.is_some() {
        taken = Some(umount(act, kind, daemon.as_ref(), record)?);
    }
    // Out of sight it lives for as long as somebody has files open.
    let is_out_of_sight = taken == Some(UnmountMethod::Lazy);
    match &daemon {
        Some(daemon) if !is_out_of_sight && !daemon.wait_for_end(act.until.left()) => {
            let why = goes_on(daemon, found);
            let text = format!("timeout: unmounted {}, but {why}", act.place.path().display());
            Err(Failed::new(ErrorCode::Busy, text))
        }
        _ => Ok((taken, daemon)),
    }
}

/// Why the daemon of what was unmounted goes on: it has data to send, or whoever was started with a
/// copy of the host's mounts, as containers are, has this one yet.
fn goes_on(daemon: &Identity, unmounted: Option<&Mount>) -> String {
    let others = unmounted.map(|mount| scan::with_copy(&mount.device));
    let daemon = daemon.pid;
    match others.and_then(Result::ok).as_deref() {
        Some([pid, ..]) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = name.trim();
            format!(
                "pid {pid} ({name}) has it in a mount namespace of its own, and its daemon goes on, \
                 pid {daemon}"
            )
        }
        _ => format!("its daemon is still flushing, pid {daemon}"),
    }
}

/// The daemon, if it was being started when its starter died.
fn leftover<'a>(
    act: &Act<'_>,
    daemon: Option<&'a Identity>,
    record: Option<&Record>,
) -> Result<Option<&'a Identity>, Failed> {
    let was_starting = record.is_some_and(|record| record.state == State::Starting);
    match daemon.filter(|_| was_starting) {
        Some(daemon) if act.has_started(daemon)? => Ok(Some(daemon)),
        _ => Ok(None),
    }
}

/// The last chance to hear of what the daemon could not send. It knew the keys.
fn tell_last_words(act: &Act<'_>, record: Option<&Record>) {
    let log = fs::read(act.node.run_dir.daemon_log(act.target)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    let source = record.map(|record| record.source.as_str()).unwrap_or_default();
    let kept = act.node.run_dir.kept_credentials(act.target, source);
    let kept = kept.and_then(|kept| Secrets::kept(&kept));
    let words = s3::last_words(&kept.map_or(log.clone(), |kept| kept.blank(&log)));
    if !words.is_empty() {
        log::warn!("{} of target {} said: {words}", act.node.s3.profile.program_name(), act.target);
    }
}

/// Makes it writable again, and removes it if it was made for the mount. Held like one that is just
/// being mounted on: another target may be about to do that, by another spelling of the path.
fn remove_mount_point(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    let is_mounted = || read_mounts().map(|mounts| mounts.at(act.place.path()).is_some());
    if is_mounted()? || !act.place.is_there()? {
        return Ok(());
    }
    let Some(held) = act.place.lock()? else {
        let text = "another target is just being mounted there";
        return Err(Failed::new(ErrorCode::Busy, text));
    };
    if is_mounted()? {
        return Ok(());
    }
    if record.sealed {
        act.place.unseal(&held)?;
    }
    if record.made_dir {
        act.place.remove()?;
    }
    Ok(())
}

/// Removes what was made for a mount that is gone: its directory, its record, its PID file.
pub(crate) fn clean_up(act: &Act<'_>, record: Option<&Record>) {
    if let Some(record) = record.filter(|record| record.sealed || record.made_dir)
        && let Err(why) = remove_mount_point(act, record)
    {
        log::warn!("left {} behind: {why}", act.place.path().display());
    }
    let daemon = record.and_then(|record| record.daemon.as_ref());
    if let Err(why) = act.node.run_dir.forget(act.target) {
        log::warn!("unable to remove the record of {}: {why}", act.target);
    } else if let Some(daemon) = daemon {
        let name = act.node.s3.profile.program_name();
        log::info!("{name} process {} ended for target {}", daemon.pid, act.target);
        log::info!("PID file deleted: {}", act.node.run_dir.pid_file(act.target).display());
    }
}
