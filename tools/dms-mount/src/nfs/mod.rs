//! NFS through mount(8): what it is told, how long it may take, and whose mount is whose.
//!
//! There is no daemon: the kernel is the client. What mount(8) says is not believed either: the
//! target is mounted when the export is in mountinfo, at that path, and a server answers.

mod export;
mod options;

pub(crate) use export::Export;
pub(crate) use options::Options;

use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use dms_wire::{Deadline, ErrorCode, TargetType};

use crate::act::{Act, cannot_look, read_mounts};
use crate::child::{self, Ended, Outcome};
use crate::failed::Failed;
use crate::mount::{Left, PATIENCE, save};
use crate::mountinfo::Mount;
use crate::probe::{self, Depth, Health};
use crate::record::{Record, State};
use crate::s3::{SEARCH_PATH, find_in_search_path};
use crate::scan;
use crate::umount::{detach_if_mounted, run_umount};

/// How long what was killed may take to end.
const SOON: Duration = Duration::from_secs(1);

/// Between two looks at that.
const GLANCE: Duration = Duration::from_millis(20);

/// More of what mount(8) says is not passed on.
const MAX_WORDS: usize = 700;

/// Whether it is one at all, ours or somebody's.
pub(crate) fn is_nfs(mount: &Mount) -> bool {
    matches!(mount.fstype.as_str(), "nfs" | "nfs4")
}

/// Whether this is what was mounted.
pub(crate) fn is_of(mount: &Mount, export: &Export) -> bool {
    is_nfs(mount) && export.is_source(&mount.source)
}

/// Whether mount(8) knows what to do with NFS.
pub(crate) fn check_installed() -> Result<(), Failed> {
    match find_in_search_path("mount.nfs") {
        Some(_) => Ok(()),
        None => Err(failed("mount.nfs is not installed")),
    }
}

/// Mounts the export, and sees it work; on any failure nothing is left of it, but for a mount(8)
/// that no signal ends.
pub(crate) fn launch(
    act: &Act<'_>,
    export: &Export,
    options: &Options,
    record: &mut Record,
) -> Result<(), Left> {
    log::info!("Mounting {} for target {}", export.as_str(), act.target);
    let mut command = command(act, export, options);
    let outcome = child::run(&mut command, act.until.left(), Some(&act.lock)).map_err(|why| {
        Failed::system(ErrorCode::Mount, "NFS mount failed: unable to run mount", &why)
    })?;
    let result = match outcome {
        Outcome::Ended(ended) if ended.status.success() => see_it_work(act, export, record),
        Outcome::Ended(ended) => Err(refused(&ended)),
        Outcome::Killed if has_nobody_left(act, export) => Err(too_long(act, export)),
        // It holds the act lock, or is known by its command line. Should it mount after all, the
        // record tells whose that is.
        Outcome::Killed | Outcome::Outlives => {
            return Err(Left::OnItsWay(too_long(act, export)));
        }
    };
    if result.is_err()
        && let Err(why) = detach_if_mounted(act, ErrorCode::Mount)
    {
        log::error!("{why}");
    }
    Ok(result?)
}

/// Whether all that was told to mount the export there has ended, or does soon: sudo(8) and rootwrap
/// may have started it in a group of its own, and without the act lock.
fn has_nobody_left(act: &Act<'_>, export: &Export) -> bool {
    let end = Deadline::after(SOON);
    loop {
        match under_way(export.as_str(), act.place.path()) {
            Ok(pids) if pids.is_empty() => return true,
            Err(why) => log::warn!("{}", cannot_look(&why)),
            Ok(_) => {}
        }
        if end.passed() {
            return false;
        }
        thread::sleep(GLANCE);
    }
}

fn under_way(export: &str, path: &Path) -> io::Result<Vec<i32>> {
    scan::told(&[export, &path.to_string_lossy()])
}

/// Nothing is done about a target as long as somebody may mount it yet who was given up.
pub(crate) fn refuse_while_under_way(act: &Act<'_>) -> Result<(), Failed> {
    let is_it = |record: &Record| record.kind == TargetType::Nfs && record.state == State::Starting;
    let Some(record) = act.before.as_ref().filter(|record| is_it(record)) else { return Ok(()) };
    let pids = under_way(&record.source, &record.path).map_err(|why| cannot_look(&why))?;
    let Some(pid) = pids.first() else { return Ok(()) };
    let text = format!("timeout: another act on {} does not end, pid {pid}", act.target);
    Err(Failed::new(ErrorCode::Busy, text))
}

/// `sudo BIN CONF` before it, where that is how root's commands are run here. Of our environment it
/// gets nothing: it may start a daemon that lives on, rpc.statd(8).
fn command(act: &Act<'_>, export: &Export, options: &Options) -> Command {
    let mut command = match &act.node.nfs.rootwrap {
        None => Command::new("mount"),
        Some((program, configuration)) => {
            let mut command = Command::new("sudo");
            command.arg(program).arg(configuration).arg("mount");
            command
        }
    };
    let options = options.to_list(&act.node.nfs);
    command.args(["-t", "nfs", "-o", &options, "--", export.as_str()]);
    command.arg(act.place.path()).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C");
    command
}

fn see_it_work(act: &Act<'_>, export: &Export, record: &mut Record) -> Result<(), Failed> {
    let path = act.place.path();
    let shown = path.display();
    let mounts = read_mounts()?;
    let Some(found) = mounts.at(path) else {
        return Err(failed(&format!("mount said yes, but nothing is mounted at {shown}")));
    };
    if !is_of(found, export) {
        let text = format!("{} ({}) is mounted at {shown}", found.source, found.fstype);
        if is_nfs(found) {
            // Nobody else mounts here just now: a server that refers its clients to another one.
            run_umount(act, &[])?;
        }
        return Err(failed(&text));
    }
    let health = probe::health(found, Depth::Server, PATIENCE.min(act.until.left()))
        .map_err(|why| Failed::system(ErrorCode::Mount, "unable to probe the mount", &why))?;
    match health {
        Health::Alive => {}
        Health::Hung => return Err(failed("timeout: mounted, but its server does not answer")),
        Health::Gone => return Err(failed("the server does not know the export any more")),
        Health::Covered => return Err(failed(&format!("something else is mounted at {shown}"))),
    }
    record.state = State::Mounted;
    record.note(found);
    save(act, record)
}

fn failed(why: &str) -> Failed {
    Failed::new(ErrorCode::Mount, format!("NFS mount failed: {why}"))
}

fn too_long(act: &Act<'_>, export: &Export) -> Failed {
    let (export, path) = (export.as_str(), act.place.path().display());
    let text = format!("timeout: mount of {export} at {path} did not end in time");
    Failed::new(ErrorCode::Timeout, text)
}

/// In its own words: its exit status is the same for everything.
fn refused(ended: &Ended) -> Failed {
    let words: String = ended.stderr.chars().take(MAX_WORDS).collect();
    if words.is_empty() {
        return failed(&format!("mount ended ({})", ended.status));
    }
    // A word that callers look for.
    let slow = if words.contains("timed out") { "timeout: " } else { "" };
    failed(&format!("{slow}{words}"))
}
