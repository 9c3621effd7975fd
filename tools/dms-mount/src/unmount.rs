//! Unmount: umount first, and wait for the daemon to send what it still has; nothing is killed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dms_wire::{ErrorCode, MountPath, Response};

use crate::child::{self, Ended};
use crate::daemon::Identity;
use crate::mount::{PATIENCE, covered, foreign, hung};
use crate::node::{Act, Failed, read_mounts};
use crate::probe::{self, Depth, Health};
use crate::record::{Record, State};
use crate::s3;

/// umount(8)'s exit status for "target is busy" (and much else: its words tell).
const UMOUNT_FAILED: i32 = 32;

/// Unmounts the target, if it is mounted; done is when its daemon has ended.
pub(crate) fn unmount(act: &Act<'_>, path: &MountPath) -> Result<Response, Failed> {
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
    let daemon = find_daemon(act, record.as_ref());
    if let (Some(daemon), Some(State::Starting)) = (&daemon, record.as_ref().map(|r| r.state)) {
        // Its starter died, and no job was told of it: there is nothing to flush.
        log::warn!(
            "pid {} was being started for {} and left alone: ending it",
            daemon.pid,
            act.target
        );
        daemon.kill(Duration::from_secs(5));
        detach_if_mounted(act, ErrorCode::Unmount)?;
    } else if found.is_some() {
        umount(act, record.as_ref())?;
    }
    if let Some(daemon) = &daemon
        && !daemon.wait_for_end(act.until.left())
    {
        let text = format!(
            "timeout: unmounted {path}, but its daemon is still flushing, pid {}",
            daemon.pid
        );
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    if !is_elsewhere {
        clean_up(act, record.as_ref());
    }
    let text = match found {
        Some(_) => format!("Target unmounted successfully from {path}"),
        None => format!("Target not mounted at {path}"),
    };
    Ok(Response {
        unmounted: Some(true),
        mount_path: Some(path.to_string()),
        ..Response::success(text)
    })
}

fn find_daemon(act: &Act<'_>, record: Option<&Record>) -> Option<Identity> {
    let recorded = record.and_then(|record| record.daemon.clone()).filter(Identity::is_alive);
    recorded.or_else(|| s3::find_daemon(act.target, act.place.path()))
}

/// umount(8), with the state on record: should we die, the daemon is known to be flushing. A
/// daemon that hangs is left alone, with the data that may be in it.
fn umount(act: &Act<'_>, record: Option<&Record>) -> Result<(), Failed> {
    let path = act.place.path();
    let health = health(act)?;
    match health {
        Health::Hung => return Err(hung(act)),
        Health::Covered => return Err(covered(act, ErrorCode::Unmount)),
        Health::Alive | Health::Gone => {}
    }
    note(act, record, State::Unmounting);
    // More than once only where one is hidden below it, by a daemon whose starter died.
    for _ in 0..3 {
        match run_umount(act, &[])? {
            Some(ended) if ended.status.success() => {}
            Some(_) if health == Health::Gone => return detach(act, ErrorCode::Unmount),
            // It may have gone away by itself.
            Some(ended) if is_mounted(act)? => return Err(in_use(act, record, &ended)),
            Some(_) => {}
            None => {
                note(act, record, State::Mounted);
                let text = format!("timeout: umount of {} did not end in time", path.display());
                return Err(Failed::new(ErrorCode::Timeout, text));
            }
        }
        if !is_mounted(act)? {
            return Ok(());
        }
    }
    Err(Failed::new(ErrorCode::Unmount, format!("{} is still mounted", path.display())))
}

fn in_use(act: &Act<'_>, record: Option<&Record>, ended: &Ended) -> Failed {
    note(act, record, State::Mounted);
    let busy = ended.status.code() == Some(UMOUNT_FAILED) && ended.stderr.contains("busy");
    let text = format!("Unmount failed: {}{}", ended.stderr, holders(act.place.path()));
    Failed::new(if busy { ErrorCode::Busy } else { ErrorCode::Unmount }, text)
}

fn health(act: &Act<'_>) -> Result<Health, Failed> {
    let Some(found) = act.mounts.at(act.place.path()) else { return Ok(Health::Gone) };
    probe::health(found, Depth::Daemon, PATIENCE.min(act.until.left()))
        .map_err(|why| Failed::system(ErrorCode::Unmount, "unable to probe the mount", &why))
}

/// Takes a mount away whose daemon is gone: nobody can lose data any more.
pub(crate) fn detach(act: &Act<'_>, code: ErrorCode) -> Result<(), Failed> {
    for arguments in [&[][..], &["-l"]] {
        run_umount(act, arguments)?;
        if !is_mounted(act)? {
            return Ok(());
        }
    }
    let text = format!("unable to unmount {}, whose daemon is gone", act.place.path().display());
    Err(Failed::new(code, text))
}

/// The same for one that may be there.
pub(crate) fn detach_if_mounted(act: &Act<'_>, code: ErrorCode) -> Result<(), Failed> {
    if is_mounted(act)? { detach(act, code) } else { Ok(()) }
}

fn is_mounted(act: &Act<'_>) -> Result<bool, Failed> {
    let mounts = read_mounts()?;
    Ok(mounts.at(act.place.path()).is_some_and(|mount| act.is_ours(mount)))
}

/// `-c`: the path is canonical, and to look at it could hang. It inherits the act lock: should it
/// outlive its bound, the target stays busy.
fn run_umount(act: &Act<'_>, arguments: &[&str]) -> Result<Option<Ended>, Failed> {
    let mut command = Command::new("umount");
    command.args(["-c", "-i"]).args(arguments).arg("--").arg(act.place.path());
    command.env("LC_ALL", "C");
    // At least a moment: what a dead daemon left is cleared away even when time is up.
    let bound = act.until.left().max(Duration::from_secs(1));
    child::run(&mut command, bound, Some(&act.lock))
        .map_err(|why| Failed::system(ErrorCode::Unmount, "unable to run umount", &why))
}

fn note(act: &Act<'_>, record: Option<&Record>, state: State) {
    if let Some(record) = record {
        let record = Record { state, ..record.clone() };
        if let Err(why) = act.node.run_dir.save(&record) {
            log::warn!("unable to write the record of {}: {why}", act.target);
        }
    }
}

/// Removes what was made for a mount that is gone: its directory, its record, its PID file.
pub(crate) fn clean_up(act: &Act<'_>, record: Option<&Record>) {
    if record.is_some_and(|record| record.made_dir)
        && let Err(why) = act.place.remove()
    {
        log::warn!("left {} behind: {why}", act.place.path().display());
    }
    // The last chance to hear of what it could not send.
    let log = fs::read(act.node.run_dir.daemon_log(act.target)).unwrap_or_default();
    let words = s3::last_words(&String::from_utf8_lossy(&log));
    if !words.is_empty() {
        log::warn!("{} of target {} said: {words}", act.node.s3.profile.program_name(), act.target);
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

/// Who has files open below `path`, as far as we may see.
fn holders(path: &Path) -> String {
    let mut pids: Vec<i32> = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let at = process.path();
        let descriptors = fs::read_dir(at.join("fd")).into_iter().flatten().flatten();
        let mut links = ["cwd", "root", "exe"]
            .map(|name| at.join(name))
            .into_iter()
            .chain(descriptors.map(|descriptor| descriptor.path()));
        // Reading a link does not touch what it points to.
        if links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(path))) {
            pids.push(pid);
        }
    }
    if pids.is_empty() {
        return String::new();
    }
    let pids: Vec<String> = pids.iter().take(8).map(i32::to_string).collect();
    format!(" (in use by pid {})", pids.join(", "))
}
