//! What an operator does by hand: `kill` and `clean`. Each act under the lock of its target.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, quiet_end, refuse};
use dms_wire::{ErrorCode, TargetId, TargetType};

use crate::cli::KillArgs;
use crate::inventory;
use crate::mount::adopt;
use crate::nfs;
use crate::node::{Act, Failed, Node};
use crate::probe::Health;
use crate::umount::{detach, health, holders, who_is_gone};
use crate::unmount::clean_up;

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
    let Some(daemon) = act.daemon() else {
        let is_nfs = act.record().is_some_and(|record| record.kind == TargetType::Nfs);
        return Ok(is_nfs.then(|| "an NFS mount has no daemon: nothing was ended".to_owned()));
    };
    let has_ended = if force { daemon.kill(END) } else { daemon.terminate(END) };
    if !has_ended {
        let hint = if force { "" } else { " (--force kills it)" };
        let text = format!("pid {} does not end{hint}", daemon.pid);
        return Err(Failed::new(ErrorCode::Busy, text));
    }
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

fn tidy(act: &Act<'_>) -> Result<Option<String>, Failed> {
    let record = act.record();
    let found = act.mounts.at(act.place.path()).filter(|mount| act.is_ours(mount));
    let daemon = act.daemon();
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
    let gone = who_is_gone(kind);
    match health(act)? {
        Health::Gone => {
            let holders = holders(act.place.path());
            if !holders.is_empty() {
                let text = format!("its {gone} is gone, and the mount is left{holders}");
                return Err(Failed::new(ErrorCode::Busy, text));
            }
            detach(act, ErrorCode::Unmount)?;
            clean_up(act, record.as_ref());
            Ok(Some(format!("its {gone} was gone: unmounted")))
        }
        Health::Alive if record.as_ref().is_none_or(|record| !record.is_of(found)) => {
            let source = record.as_ref().map(|record| record.source.clone()).unwrap_or_default();
            adopt(act, found, kind, &source, record)?;
            Ok(Some(format!("mounted at {}: on record again", found.path.display())))
        }
        Health::Alive => Ok(None),
        Health::Hung => Err(Failed::new(ErrorCode::Timeout, "timeout: it does not answer")),
        Health::Covered => Err(Failed::new(ErrorCode::Busy, "it is hidden by another mount")),
    }
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
        let daemon = node.act(&target, &path, BUSY).map(|act| act.and_then(|act| act.daemon()));
        let daemon = daemon.map_err(|why| refuse(&format!("{target}: {why}")))?;
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
