//! umount(8), step by step, as far as the policy allows.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dms_wire::{ErrorCode, TargetType, UnmountMethod};

use crate::act::{Act, read_mounts};
use crate::child::{self, Ended, Outcome};
use crate::daemon::Identity;
use crate::failed::Failed;
use crate::join::{covered, hung};
use crate::mount::PATIENCE;
use crate::nfs;
use crate::probe::{self, Depth, Health};
use crate::record::{Record, State};
use crate::{s3, scan};

/// umount(8)'s exit status for "target is busy" (and much else: its words tell).
const UMOUNT_FAILED: i32 = 32;

/// How long a daemon may take to end at TERM, and then at KILL.
const END: Duration = Duration::from_secs(5);

/// A mount that has not answered for less than this is not known to hang.
const PROOF: Duration = Duration::from_secs(2);

/// What to do about a mount that somebody still has files open in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnBusy {
    /// Leave it mounted, and say who
    Fail,
    /// Give up what is under way, and unmount
    Force,
    /// Take it out of sight; an nfs mount is forced first
    Lazy,
}

/// What to do about a daemon that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnHung {
    /// Leave it alone: data of jobs may be in it
    Leave,
    /// End it, with the data that may be in it
    Kill,
}

/// How far an unmount may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// `None`: as is usual for the type of the target.
    pub(crate) on_busy: Option<OnBusy>,
    pub(crate) on_hung: OnHung,
    /// How long each step may take.
    pub(crate) step: Duration,
}

impl Policy {
    /// The steps for a target of this type, in their order. A job's data in a FUSE daemon is lost by
    /// any but the first; an NFS server that is gone can be left by the others only.
    fn steps(&self, kind: TargetType) -> &'static [UnmountMethod] {
        use UnmountMethod::{Force, Lazy, Umount};
        let is_nfs = kind == TargetType::Nfs;
        let usual = if is_nfs { OnBusy::Lazy } else { OnBusy::Fail };
        match self.on_busy.unwrap_or(usual) {
            OnBusy::Fail => &[Umount],
            OnBusy::Force => &[Umount, Force],
            OnBusy::Lazy if is_nfs => &[Umount, Force, Lazy],
            // Whoever has files open there may go on: to force it would end that.
            OnBusy::Lazy => &[Umount, Lazy],
        }
    }
}

/// Takes the mount away, with the state on record: should we die, the daemon is known to be
/// flushing. Says what it took.
pub(crate) fn umount(
    act: &Act<'_>,
    kind: TargetType,
    daemon: Option<&Identity>,
    record: Option<&Record>,
) -> Result<UnmountMethod, Failed> {
    let health = health(act)?;
    match health {
        Health::Hung if kind != TargetType::Nfs => return end_hung(act, daemon, record),
        Health::Covered => return Err(covered(act, ErrorCode::Unmount)),
        Health::Gone => {
            note(act, record, State::Unmounting);
            return detach(act, ErrorCode::Unmount).map(|()| UnmountMethod::Umount);
        }
        Health::Alive | Health::Hung => {}
    }
    note(act, record, State::Unmounting);
    let mut why = None;
    let steps = act.node.policy.steps(kind);
    for method in steps {
        if steps.last() != Some(method) && is_left_out(act, health, method)? {
            continue;
        }
        why = match step(act, kind, method)? {
            Step::Done => return Ok(method.clone()),
            // It answers, and it may still be writing.
            Step::OutOfTime(why) if health != Health::Hung => {
                note(act, record, State::Mounted);
                return Err(why);
            }
            Step::Failed(why) | Step::OutOfTime(why) => Some(why),
        };
        if let Some(why) = &why {
            log::warn!("{why}");
        }
    }
    note(act, record, State::Mounted);
    Err(why.unwrap_or_else(|| Failed::new(ErrorCode::Unmount, "no step is allowed")))
}

/// Where there is another step.
fn is_left_out(act: &Act<'_>, health: Health, method: &UnmountMethod) -> Result<bool, Failed> {
    Ok(match method {
        // It would wait for a server that does not answer.
        UnmountMethod::Umount => health == Health::Hung,
        // It would end what jobs of other targets wait for.
        UnmountMethod::Force => {
            let mounts = read_mounts()?;
            mounts.at(act.place.path()).is_some_and(|mount| mounts.is_shared(mount))
        }
        _ => false,
    })
}

enum Step {
    Done,
    Failed(Failed),
    OutOfTime(Failed),
}

/// More than once only where one is hidden below it, by a daemon whose starter died.
fn step(act: &Act<'_>, kind: TargetType, method: &UnmountMethod) -> Result<Step, Failed> {
    let arguments: &[&str] = match method {
        UnmountMethod::Force => &["-f"],
        UnmountMethod::Lazy => &["-l"],
        _ => &[],
    };
    let path = act.place.path().display();
    for _ in 0..3 {
        let ended = run_umount(act, arguments)?;
        // Whatever it says, it may have gone away by itself.
        if !is_mounted(act)? {
            return Ok(Step::Done);
        }
        if *method == UnmountMethod::Force && kind != TargetType::Nfs {
            // The kernel has cut the daemon off, even if it says busy: what is left is of no use.
            return detach(act, ErrorCode::Unmount).map(|()| Step::Done);
        }
        match ended {
            Outcome::Ended(ended) if ended.status.success() => {}
            Outcome::Ended(ended) => return Ok(Step::Failed(in_use(act, &ended))),
            Outcome::Killed | Outcome::Outlives => {
                let text = format!("timeout: umount of {path} did not end in time");
                return Ok(Step::OutOfTime(Failed::new(ErrorCode::Timeout, text)));
            }
        }
    }
    Ok(Step::Failed(Failed::new(ErrorCode::Unmount, format!("{path} is still mounted"))))
}

/// A daemon that hangs is left alone, with the data that may be in it, unless the operator has
/// said that the data may be lost.
fn end_hung(
    act: &Act<'_>,
    daemon: Option<&Identity>,
    record: Option<&Record>,
) -> Result<UnmountMethod, Failed> {
    let Some(daemon) = daemon.filter(|_| act.node.policy.on_hung == OnHung::Kill) else {
        return Err(hung(act));
    };
    log::warn!("pid {} of {} does not answer: ending it", daemon.pid, act.target);
    note(act, record, State::Unmounting);
    if !daemon.terminate(END) && !daemon.kill(END) {
        let text = format!("pid {} of {} does not end", daemon.pid, act.target);
        return Err(Failed::new(ErrorCode::Unmount, text));
    }
    detach_if_mounted(act, ErrorCode::Unmount).map(|()| UnmountMethod::Kill)
}

fn in_use(act: &Act<'_>, ended: &Ended) -> Failed {
    let busy = ended.status.code() == Some(UMOUNT_FAILED) && ended.stderr.contains("busy");
    let text = format!("Unmount failed: {}{}", ended.stderr, holders(act.place.path()));
    Failed::new(if busy { ErrorCode::Busy } else { ErrorCode::Unmount }, text)
}

pub(crate) fn health(act: &Act<'_>) -> Result<Health, Failed> {
    let Some(found) = act.mounts.at(act.place.path()) else { return Ok(Health::Gone) };
    let left = act.until.left();
    // Where there are steps for a server that does not answer, they need some of the time.
    let left = if nfs::is_nfs(found) { left / 2 } else { left };
    let bound = PATIENCE.min(left);
    let health = probe::health(found, Depth::Daemon, bound)
        .map_err(|why| Failed::system(ErrorCode::Unmount, "unable to probe the mount", &why))?;
    if health == Health::Hung && bound < PROOF {
        let text = "timeout: there is no time left to see whether the mount answers";
        return Err(Failed::new(ErrorCode::Timeout, text));
    }
    Ok(health)
}

/// Behind a mount of a target: a FUSE mount needs its daemon, an NFS mount its export.
pub(crate) fn who_is_gone(kind: TargetType) -> &'static str {
    if kind == TargetType::Nfs { "export" } else { "daemon" }
}

/// Takes a mount away whose daemon is gone: nobody can lose data any more.
pub(crate) fn detach(act: &Act<'_>, code: ErrorCode) -> Result<(), Failed> {
    for arguments in [&[][..], &["-l"]] {
        run_umount(act, arguments)?;
        if !is_mounted(act)? {
            return Ok(());
        }
    }
    let text = format!("unable to unmount {}, which is of no use", act.place.path().display());
    Err(Failed::new(code, text))
}

/// The same for one that may be there.
pub(crate) fn detach_if_mounted(act: &Act<'_>, code: ErrorCode) -> Result<(), Failed> {
    if is_mounted(act)? { detach(act, code) } else { Ok(()) }
}

fn is_mounted(act: &Act<'_>) -> Result<bool, Failed> {
    let mounts = read_mounts()?;
    mounts.at(act.place.path()).map_or(Ok(false), |mount| act.is_ours(mount))
}

/// `-c`: the path is canonical, and to look at it could hang. It inherits the act lock: should it
/// outlive its bound, the target stays busy.
pub(crate) fn run_umount(act: &Act<'_>, arguments: &[&str]) -> Result<Outcome, Failed> {
    // By its path: to search for it in a child, all of our memory would have to be copied.
    let program = s3::find_in_search_path("umount").unwrap_or_else(|| "umount".into());
    let mut command = Command::new(program);
    command.args(["-c", "-i"]).args(arguments).arg("--").arg(act.place.path());
    command.env("LC_ALL", "C").env("PATH", s3::SEARCH_PATH);
    // At least a moment: what a dead daemon left is cleared away even when time is up.
    let bound = act.until.left().min(act.node.policy.step).max(Duration::from_secs(1));
    child::run(&mut command, bound, Some(&act.lock))
        .map_err(|why| Failed::system(ErrorCode::Unmount, "unable to run umount", &why))
}

pub(crate) fn note(act: &Act<'_>, record: Option<&Record>, state: State) {
    if let Some(record) = record {
        let record = Record { state, ..record.clone() };
        if let Err(why) = act.node.run_dir.save(&record) {
            log::warn!("unable to write the record of {}: {why}", act.target);
        }
    }
}

/// Who has files open below `path`, for a message that is told anyway.
fn holders(path: &Path) -> String {
    let pids = scan::below(path).unwrap_or_else(|why| {
        log::warn!("unable to look at the processes of this host: {why}");
        Vec::new()
    });
    if pids.is_empty() { String::new() } else { in_use_by(&pids) }
}

/// A few of them.
pub(crate) fn in_use_by(pids: &[i32]) -> String {
    let pids: Vec<String> = pids.iter().take(8).map(i32::to_string).collect();
    format!(" (in use by pid {})", pids.join(", "))
}
