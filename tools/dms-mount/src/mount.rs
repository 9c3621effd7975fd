//! Mount: make sure that the target is there, whoever else uses it.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use dms_wire::{ErrorCode, MountPath, Response, TargetType};

use crate::credentials::{self, Credentials};
use crate::daemon::{self, Daemon};
use crate::mountinfo::Mount;
use crate::node::{Act, Failed, read_mounts};
use crate::probe::{self, Depth, Health};
use crate::record::{Record, State};
use crate::umount::{detach, detach_if_mounted};
use crate::{s3, unmount};

/// How long a daemon that is there may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts the target, or finds it mounted and alive.
pub(crate) fn mount(act: &Act<'_>, source: &str, path: &MountPath) -> Result<Response, Failed> {
    let record = act.record();
    if let Some(record) = &record {
        refuse_second_path(act, record)?;
    }
    let found = act.mounts.at(act.place.path());
    if let Some(found) = found {
        if !act.is_ours(found) {
            return Err(foreign(found));
        }
        if is_usable(act, found, record.as_ref())? {
            refuse_other_storage(act, found, source, record.as_ref())?;
            adopt(act, found, source, record)?;
            return Ok(mounted(path, true));
        }
    }
    if found.is_some() {
        log::warn!("the daemon of {} is gone: mounting {path} anew", act.target);
        detach(act, ErrorCode::Mount)?;
    } else {
        clear_the_way(act, record.as_ref())?;
    }
    let made_before =
        record.is_some_and(|record| record.made_dir && record.path == act.place.path());
    start(act, source, made_before)?;
    Ok(mounted(path, false))
}

fn mounted(path: &MountPath, reused: bool) -> Response {
    let text = match reused {
        true => format!("S3 target already mounted at {path}"),
        false => format!("S3 target mounted successfully at {path}"),
    };
    Response {
        mount_path: Some(path.to_string()),
        physically_mounted: Some(!reused),
        reused_existing: Some(reused),
        ..Response::success(text)
    }
}

/// Whether what is mounted there works. A hung one is an error: other jobs' data may be in it.
fn is_usable(act: &Act<'_>, found: &Mount, record: Option<&Record>) -> Result<bool, Failed> {
    // One that nobody has seen working yet may still be finding out that it cannot.
    let is_known = record.is_some_and(|record| record.is_of(found));
    let depth = if is_known { Depth::Daemon } else { Depth::Server };
    let bound = PATIENCE.min(act.until.left());
    let health = probe::health(found, depth, bound)
        .map_err(|why| Failed::system(ErrorCode::Mount, "unable to probe the mount", &why))?;
    match health {
        // If it went away meanwhile, it was the bare directory that answered.
        Health::Alive => Ok(read_mounts()?.at(&found.path) == Some(found)),
        Health::Gone => Ok(false),
        Health::Hung => Err(hung(act)),
        Health::Covered => Err(covered(act, ErrorCode::Mount)),
    }
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
    source: &str,
    record: Option<Record>,
) -> Result<(), Failed> {
    if record.as_ref().is_some_and(|record| record.is_of(found)) {
        return Ok(());
    }
    log::warn!("found {} mounted at {} without a record", act.target, found.path.display());
    let mut adopted = Record {
        storage: record.as_ref().and_then(|record| record.storage.clone()),
        state: State::Mounted,
        made_dir: record.as_ref().is_some_and(|record| record.made_dir),
        sealed: record.is_some_and(|record| record.sealed),
        daemon: act.daemon(),
        ..new_record(act, source)
    };
    adopted.note(found);
    save(act, &adopted)
}

/// The record of a mount that is about to be made.
fn new_record(act: &Act<'_>, source: &str) -> Record {
    Record {
        target: act.target.clone(),
        kind: TargetType::S3,
        path: act.place.path().to_owned(),
        source: source.to_owned(),
        storage: None,
        state: State::Starting,
        made_dir: false,
        mount_id: None,
        device: None,
        mounted_as: None,
        sealed: false,
        daemon: None,
    }
}

/// The same target, said to be elsewhere: another secret may open the same bucket, but a job must
/// not be told yes and write into another one.
fn refuse_other_storage(
    act: &Act<'_>,
    found: &Mount,
    source: &str,
    record: Option<&Record>,
) -> Result<(), Failed> {
    let record = record.filter(|record| record.path == found.path);
    if record.is_some_and(|record| record.source == source) {
        return Ok(());
    }
    let wanted = fetch(act, source)?;
    let same = match record.and_then(|record| record.storage.as_ref()) {
        Some(storage) => *storage == wanted.storage(),
        None => bucket_of(act, found).is_some_and(|bucket| bucket == wanted.bucket),
    };
    if !same {
        let text = format!(
            "Mount failed: target {} is mounted from {}, and {source} is of another bucket",
            act.target, found.source
        );
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    log::warn!("target {} is mounted already, by another secret than {source}", act.target);
    Ok(())
}

/// As the mount says itself, or as its daemon was told.
fn bucket_of(act: &Act<'_>, found: &Mount) -> Option<String> {
    let told = || daemon::variable(act.daemon()?.pid, "vault_s3_bucket");
    s3::bucket_of(found).map(str::to_owned).or_else(told)
}

fn refuse_second_path(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    let elsewhere = record.path != act.place.path()
        && act.mounts.at(&record.path).is_some_and(|mount| act.is_ours(mount));
    if elsewhere {
        let text = format!("target {} is mounted at {}", act.target, record.path.display());
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    Ok(())
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

/// Nothing is mounted, but a daemon may be: one that still sends its data must not be disturbed,
/// one that was being started when its starter died must not mount over ours.
fn clear_the_way(act: &Act<'_>, record: Option<&Record>) -> Result<(), Failed> {
    let Some(daemon) = act.daemon() else { return Ok(()) };
    let was_starting = record.is_some_and(|record| record.state == State::Starting);
    if was_starting {
        log::warn!(
            "pid {} was being started for {} and left alone: ending it",
            daemon.pid,
            act.target
        );
        if daemon.kill(Duration::from_secs(5)) {
            // It may have mounted just before.
            return detach_if_mounted(act, ErrorCode::Mount);
        }
    } else if daemon.wait_for_end(PATIENCE.min(act.until.left())) {
        return Ok(());
    }
    let text = format!("{} is busy: still flushing, pid {}", act.target, daemon.pid);
    Err(Failed::new(ErrorCode::Busy, text))
}

/// Starts the daemon and waits until the mount works; on any failure nothing is left of it.
fn start(act: &Act<'_>, source: &str, made_before: bool) -> Result<(), Failed> {
    let credentials = fetch(act, source)?;
    let profile = &act.node.s3.profile;
    let program = profile.find_program().ok_or_else(|| {
        let text = format!("Mount failed: {} is not installed", profile.program_name());
        Failed::new(ErrorCode::Mount, text)
    })?;
    let mut record = Record {
        storage: Some(credentials.storage()),
        made_dir: made_before,
        ..new_record(act, source)
    };
    let outcome = prepare(act, &mut record)
        .and_then(|_held| launch(act, &program, &credentials, &mut record));
    match outcome {
        Ok(()) => announce(act, &record),
        Err(_) => unmount::clean_up(act, Some(&record)),
    }
    outcome
}

/// The record, and then the mount point: should we die in between or right after, both are known
/// for what they are. While the result lives, nobody else mounts there.
fn prepare(act: &Act<'_>, record: &mut Record) -> Result<File, Failed> {
    record.made_dir |= !act.place.is_there()?;
    save(act, record)?;
    act.place.make()?;
    let path = act.place.path().display();
    let Some(held) = act.place.lock()? else {
        // Theirs to remove, too.
        record.made_dir = false;
        let text = format!("another target is just being mounted at {path}");
        return Err(Failed::new(ErrorCode::Busy, text));
    };
    if let Some(found) = read_mounts()?.at(act.place.path()) {
        record.made_dir = false;
        return Err(foreign(found));
    }
    if !act.place.is_empty()? {
        let text =
            format!("Mount failed: {path} is not empty: mounting over it would hide its files");
        return Err(Failed::new(ErrorCode::Mount, text));
    }
    record.sealed = act.place.seal(&held);
    save(act, record)?;
    Ok(held)
}

fn launch(
    act: &Act<'_>,
    program: &Path,
    credentials: &Credentials,
    record: &mut Record,
) -> Result<(), Failed> {
    let name = act.node.s3.profile.program_name();
    log::info!("Spawning {name} for target {}", act.target);
    let path = act.place.path();
    let log = act.node.run_dir.daemon_log(act.target);
    let started = s3::start(program, &act.node.s3, act.target, credentials, path, &log);
    let started = started.map_err(|why| {
        let what = format!("Mount failed: unable to start {name}");
        Failed::system(ErrorCode::Mount, &what, &why)
    })?;
    record.daemon = Some(started.daemon.identity.clone());
    record.mounted_as = Some(started.mounted_as.clone());
    let outcome = save(act, record)
        .and_then(|()| {
            s3::wait_until_ready(&started, name, path, act.until).map_err(|why| {
                started.daemon.wait_for_words(Duration::from_secs(1));
                explain(act, credentials, &why)
            })
        })
        .and_then(|mount| {
            record.state = State::Mounted;
            record.note(&mount);
            save(act, record)
        });
    if outcome.is_err() {
        give_up(act, &started.daemon);
    }
    outcome
}

fn fetch(act: &Act<'_>, source: &str) -> Result<Credentials, Failed> {
    credentials::fetch(source, act.node.secret_dir.as_deref())
        .map_err(|why| Failed::new(ErrorCode::Credentials, why.0))
}

fn save(act: &Act<'_>, record: &Record) -> Result<(), Failed> {
    act.node.run_dir.save(record).map_err(|why| {
        Failed::system(ErrorCode::Mount, "Mount failed: unable to write the mount's record", &why)
    })
}

fn announce(act: &Act<'_>, record: &Record) {
    let pid = record.daemon.as_ref().map(|daemon| daemon.pid).unwrap_or_default();
    let name = act.node.s3.profile.program_name();
    log::info!("{name} spawned successfully for target {}", act.target);
    log::info!("  PID: {pid}");
    log::info!("  Mount path: {}", record.path.display());
    log::info!("  PID file: {}", act.node.run_dir.pid_file(act.target).display());
}

/// The daemon's own words, and whether they are about the credentials.
fn explain(act: &Act<'_>, credentials: &Credentials, why: &str) -> Failed {
    let log = fs::read(act.node.run_dir.daemon_log(act.target)).unwrap_or_default();
    // Blanked before it is cut, or half a key could stay.
    let words = s3::last_words(&credentials.blank(&String::from_utf8_lossy(&log)));
    let name = act.node.s3.profile.program_name();
    let said = if words.is_empty() { String::new() } else { format!("; {name} said: {words}") };
    if s3::blames_credentials(&words) {
        let text = format!("Mount failed: the storage refused the credentials: {why}{said}");
        return Failed::new(ErrorCode::Credentials, text);
    }
    Failed::new(ErrorCode::Mount, format!("Mount failed: {why}{said}"))
}

/// Ends a daemon whose mount no job was told of, and takes its mount away.
fn give_up(act: &Act<'_>, daemon: &Daemon) {
    if !daemon.identity.kill(Duration::from_secs(5)) {
        log::error!("pid {} does not end", daemon.identity.pid);
    }
    if let Err(why) = detach_if_mounted(act, ErrorCode::Mount) {
        log::error!("{why}");
    }
}
