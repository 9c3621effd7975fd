//! Unmount: umount first, and wait for the daemon to send what it still has; nothing is killed,
//! unless the operator has said so.

use std::fs;
use std::time::Duration;

use dms_wire::{ErrorCode, MountPath, Response, TargetType, UnmountMethod};

use crate::mount::foreign;
use crate::nfs;
use crate::node::{Act, Failed, read_mounts};
use crate::record::{Record, State};
use crate::s3;
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
    let record = act.record();
    // A record of a mount elsewhere is none of ours to forget.
    let is_elsewhere = record.as_ref().is_some_and(|record| record.path != act.place.path());
    let record = record.filter(|_| !is_elsewhere);
    let found = act.mounts.at(act.place.path());
    if let Some(found) = found
        && !act.is_ours(found)
    {
        let why = foreign(found).to_string().replace("Mount failed", "Unmount failed");
        return Err(Failed::new(ErrorCode::Unmount, why));
    }
    let daemon = act.daemon();
    let is_nfs = found.is_some_and(nfs::is_nfs);
    let kind = record.as_ref().map(|record| record.kind).or(is_nfs.then_some(TargetType::Nfs));
    let kind = kind.or(said).unwrap_or(TargetType::S3);
    let (mut taken, mut is_out_of_sight) = (None, false);
    let is_starting = |record: &Record| record.state == State::Starting;
    if let Some(daemon) = daemon
        .as_ref()
        .filter(|daemon| record.as_ref().is_some_and(is_starting) && act.has_started(daemon))
    {
        // Its starter died, and no job was told of it: there is nothing to flush.
        log::warn!(
            "pid {} was being started for {} and left alone: ending it",
            daemon.pid,
            act.target
        );
        daemon.kill(Duration::from_secs(5));
        detach_if_mounted(act, ErrorCode::Unmount)?;
    } else if found.is_some() {
        let method = umount(act, kind, daemon.as_ref(), record.as_ref())?;
        is_out_of_sight = method == UnmountMethod::Lazy;
        taken = Some(method);
    }
    // Out of sight it lives for as long as somebody has files open.
    let patience = if is_out_of_sight { Duration::ZERO } else { act.until.left() };
    if let Some(daemon) = &daemon
        && !daemon.wait_for_end(patience)
        && !is_out_of_sight
    {
        let text = format!(
            "timeout: unmounted {path}, but its daemon is still flushing, pid {}",
            daemon.pid
        );
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    if !is_elsewhere {
        tell_last_words(act, record.as_ref());
        clean_up(act, record.as_ref());
        if let Err(why) = act.node.run_dir.drop_credentials(act.target) {
            log::warn!("unable to remove the credentials of {}: {why}", act.target);
        }
    }
    let text = match found {
        Some(_) => format!("Target unmounted successfully from {path}"),
        None => format!("Target not mounted at {path}"),
    };
    Ok(Response {
        unmounted: Some(true),
        unmount_method: taken,
        mount_path: Some(path.to_string()),
        ..Response::success(text)
    })
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

/// Removes what was made for a mount that is gone: its directory, its record, its PID file.
pub(crate) fn clean_up(act: &Act<'_>, record: Option<&Record>) {
    if record.is_some_and(|record| record.sealed)
        && read_mounts().is_ok_and(|mounts| mounts.at(act.place.path()).is_none())
        && let Err(why) = act.place.unseal()
    {
        log::warn!("{why}");
    }
    if record.is_some_and(|record| record.made_dir)
        && let Err(why) = act.place.remove()
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
