//! What an operator does by hand: `kill` and `clean`. Each act under the lock of its target.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, quiet_end};
use dms_wire::{ErrorCode, TargetId, TargetType};

use crate::act::{Act, cannot_look};
use crate::cli::KillArgs;
use crate::daemon::Identity;
use crate::failed::Failed;
use crate::inventory::{self, Entry};
use crate::join::adopt;
use crate::mountinfo::Mount;
use crate::nfs;
use crate::node::Node;
use crate::probe::Health;
use crate::record::{Record, State};
use crate::s3::Known;
use crate::scan;
use crate::umount::{detach, health, in_use_by, who_is_gone};
use crate::unmount::clean_up;
use crate::zfs;

/// How long to wait for another act on a target.
const BUSY: Duration = Duration::from_secs(5);

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(10);

/// Ends daemons of our own mounts, and of nobody else's.
pub(crate) fn kill(node: &Node, args: &KillArgs, mut output: impl Write) -> Result<Exit, Failure> {
    let all = tracked(node)?;
    let chosen: Vec<_> = match &args.who {
        None => all,
        Some(who) => {
            let is_it = |target: &TargetId| target.as_str() == who;
            let by_id: Vec<_> = all.iter().filter(|(id, _)| is_it(id)).cloned().collect();
            match who.parse::<i32>() {
                Ok(pid) if by_id.is_empty() => of_pid(node, all, pid)?,
                _ => by_id,
            }
        }
    };
    if let (true, Some(who)) = (chosen.is_empty(), &args.who) {
        return Err(Failure::new(Exit::No, format!("{who} is no daemon of a mount of ours")));
    }
    let mut exit = Exit::Done;
    for (target, path) in chosen {
        let said = on_target(node, &target, &path, |act| end(act, args.force));
        say(&mut output, &target, said, &mut exit)?;
    }
    Ok(exit)
}

fn end(act: &Act<'_>, force: bool) -> Result<Option<String>, Failed> {
    if act.record().is_some_and(|record| record.kind == TargetType::Zfs) {
        return Ok(Some("a pool has no daemon: nothing was ended".to_owned()));
    }
    let Some(daemon) = act.daemon()? else {
        let is_nfs = act.record().is_some_and(|record| record.kind == TargetType::Nfs);
        return Ok(is_nfs.then(|| "an NFS mount has no daemon: nothing was ended".to_owned()));
    };
    let name = act.node.s3.profile.program_name();
    log::info!("Killing {name} process for target {}", act.target);
    log::info!("  PID: {}", daemon.pid);
    let has_ended = if force { daemon.kill(END) } else { daemon.terminate(END) };
    if !has_ended {
        let hint = if force { "" } else { " (--force kills it)" };
        let text = format!("pid {} does not end{hint}", daemon.pid);
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    log::info!("{name} process killed for target {}", act.target);
    Ok(Some(format!("pid {} ended", daemon.pid)))
}

/// Puts away what the dead have left behind, and takes on what lives and has lost its record.
pub(crate) fn clean(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for (target, path) in tracked(node)? {
        let said = on_target(node, &target, &path, tidy);
        say(&mut output, &target, said, &mut exit)?;
    }
    Ok(exit)
}

/// Removes what an unmount could not, since the disk refused: files of targets that are not mounted, have
/// no daemon, and are on no record or on one that says that they were unmounted. Whoever is at work on
/// a target is not waited for. `entries`: what is mounted, wherever that is.
pub(crate) fn sweep(node: &Node, entries: &[Entry]) {
    for (target, record) in node.run_dir.left_over() {
        let is_it = |entry: &Entry| entry.target.as_deref() == Some(target.as_str());
        if entries.iter().any(is_it) {
            continue;
        }
        let path = record.map_or_else(|| node.default_path(&target), |record| record.path);
        let swept = node.act(&target, &path, Duration::ZERO);
        let swept = swept.and_then(|act| act.map_or(Ok(()), |act| sweep_one(&act)));
        if let Err(why) = swept {
            log::warn!("unable to remove what is left of {target}: {why}");
        }
    }
}

fn sweep_one(act: &Act<'_>) -> Result<(), Failed> {
    let record = act.record();
    let is_over =
        |record: &Record| record.state == State::Unmounting && record.kind != TargetType::Zfs;
    // Without a record it may be mounted elsewhere, by a program whose mounts do not say whose they are.
    let number = act.node.run_dir.pid_in_file(act.target).filter(|_| record.is_none());
    let runs = number.is_some_and(|pid| !matches!(Identity::of(pid), Ok(None)));
    // It may have been mounted again since we looked.
    let is_left = record.as_ref().is_none_or(is_over)
        && !runs
        && act.mounts.at(act.place.path()).is_none()
        && act.daemon()?.is_none();
    if is_left {
        log::info!("removing what the unmount of {} has left", act.target);
        if let Err(why) = act.node.run_dir.drop_credentials(act.target) {
            log::warn!("unable to remove the credentials of {}: {why}", act.target);
        }
        clean_up(act, record.as_ref());
    }
    Ok(())
}

fn tidy(act: &Act<'_>) -> Result<Option<String>, Failed> {
    nfs::refuse_while_under_way(act)?;
    let record = act.record();
    if record.as_ref().is_some_and(|record| record.kind == TargetType::Zfs) {
        return zfs::tidy(act);
    }
    let mut found = act.mounts.at(act.place.path());
    if let Some(mount) = found
        && !act.is_ours(mount)?
    {
        found = None;
    }
    let daemon = act.daemon()?;
    let Some(found) = found else {
        return Ok(match daemon {
            // What it still has to send is somebody's data.
            Some(daemon) => Some(format!("not mounted, and pid {} is still flushing", daemon.pid)),
            None => {
                clean_up(act, record.as_ref());
                Some("nothing is mounted: its record and PID file are removed".to_owned())
            }
        });
    };
    let kind = if nfs::is_nfs(found) { TargetType::Nfs } else { TargetType::S3 };
    match health(act)? {
        Health::Gone => put_away(act, kind, record.as_ref()).map(Some),
        Health::Alive if record.as_ref().is_none_or(|record| !record.is_of(found)) => {
            take_on(act, found, kind, record.as_ref()).map(Some)
        }
        Health::Alive => Ok(None),
        Health::Hung => Err(Failed::new(ErrorCode::Timeout, "timeout: it does not answer")),
        Health::Covered => Err(Failed::new(ErrorCode::Busy, "it is hidden by another mount")),
    }
}

/// A mount that nobody serves any more, if nobody stands in it either.
fn put_away(act: &Act<'_>, kind: TargetType, record: Option<&Record>) -> Result<String, Failed> {
    let gone = who_is_gone(kind);
    let holders = scan::below(act.place.path()).map_err(|why| cannot_look(&why))?;
    if !holders.is_empty() {
        let holders = in_use_by(&holders);
        let text = format!("its {gone} is gone, and the mount is left{holders}");
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    detach(act, ErrorCode::Unmount)?;
    clean_up(act, record);
    Ok(format!("its {gone} was gone: unmounted"))
}

/// A mount that lives, and has lost its record.
fn take_on(
    act: &Act<'_>,
    found: &Mount,
    kind: TargetType,
    record: Option<&Record>,
) -> Result<String, Failed> {
    let source = record.map(|record| record.source.clone()).unwrap_or_default();
    let storage = if kind == TargetType::S3 { Known::of(act, found)?.storage() } else { None };
    adopt(act, found, kind, &source, storage, record)?;
    Ok(format!("mounted at {}: on record again", found.path.display()))
}

/// All targets of which there is a mount, a record or a PID file, and where they are mounted.
fn tracked(node: &Node) -> Result<Vec<(TargetId, PathBuf)>, Failure> {
    let mut all: BTreeSet<(String, PathBuf)> = BTreeSet::new();
    for entry in inventory::take(node).context("unable to read", "/proc/self/mountinfo")? {
        all.extend(entry.target.map(|target| (target, entry.mount.path)));
    }
    let mut add = |target: String, path: PathBuf| {
        if !all.iter().any(|(known, _)| *known == target) {
            all.insert((target, path));
        }
    };
    for record in node.run_dir.records() {
        add(record.target.to_string(), record.path);
    }
    for (target, _) in node.run_dir.pid_files() {
        add(target.to_string(), node.default_path(&target));
    }
    let id = |text: String| TargetId::try_from(text).ok();
    Ok(all.into_iter().filter_map(|(target, path)| Some((id(target)?, path))).collect())
}

/// Those whose daemon has this number.
fn of_pid(
    node: &Node,
    all: Vec<(TargetId, PathBuf)>,
    pid: i32,
) -> Result<Vec<(TargetId, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for (target, path) in all {
        let act = node.act(&target, &path, BUSY);
        let daemon = act.and_then(|act| act.map_or(Ok(None), |act| act.daemon()));
        let daemon = daemon.map_err(|why| Failure::temporary(format!("{target}: {why}")))?;
        if daemon.is_some_and(|daemon| daemon.pid == pid) {
            found.push((target, path));
        }
    }
    Ok(found)
}

fn on_target(
    node: &Node,
    target: &TargetId,
    path: &std::path::Path,
    work: impl Fn(&Act<'_>) -> Result<Option<String>, Failed>,
) -> Result<Option<String>, Failed> {
    match node.act(target, path, BUSY)? {
        Some(act) => work(&act),
        None => Err(Failed::new(ErrorCode::Busy, "another act does not end")),
    }
}

/// A line for what was done; for what was not, a line in the log.
fn say(
    output: &mut impl Write,
    target: &TargetId,
    said: Result<Option<String>, Failed>,
    exit: &mut Exit,
) -> Result<(), Failure> {
    match said {
        Ok(None) => Ok(()),
        Ok(Some(text)) => quiet_end(writeln!(output, "{target}: {}", dms_cli::plain(&text)))
            .context("unable to write", "stdout"),
        Err(why) => {
            log::error!("{target}: {}", dms_cli::plain(&why.to_string()));
            *exit = Exit::No;
            Ok(())
        }
    }
}
