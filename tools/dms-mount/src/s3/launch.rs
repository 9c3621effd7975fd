//! One S3 target: its secret fetched, its daemon started, seen working, and ended if it does not.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dms_wire::ErrorCode;

use super::{blames_credentials, last_words, start, wait_until_ready};
use crate::act::Act;
use crate::daemon::Daemon;
use crate::failed::Failed;
use crate::mount::save;
use crate::record::{Record, State};
use crate::secrets::{Credentials, Secrets};
use crate::umount::detach_if_mounted;

/// All that can be had before anything is made.
pub(crate) struct Ready {
    program: PathBuf,
    pub(crate) credentials: Credentials,
}

pub(crate) fn get_ready(act: &Act<'_>, source: &str) -> Result<Ready, Failed> {
    let credentials = fetch(act, source).or_else(|why| kept(act, source).ok_or(why))?;
    let profile = &act.node.s3.profile;
    let program = profile.find_program().ok_or_else(|| {
        let text = format!("Mount failed: {} is not installed", profile.program_name());
        Failed::new(ErrorCode::Mount, text)
    })?;
    Ok(Ready { program, credentials })
}

/// Starts the daemon and waits until the mount works; on any failure it is ended.
pub(crate) fn launch(act: &Act<'_>, ready: &Ready, record: &mut Record) -> Result<(), Failed> {
    let name = act.node.s3.profile.program_name();
    log::info!("Spawning {name} for target {}", act.target);
    let path = act.place.path();
    let log = act.node.run_dir.daemon_log(act.target);
    let Ready { program, credentials } = ready;
    let started = start(program, &act.node.s3, act.target, credentials, path, &log);
    let started = started.map_err(|why| {
        let what = format!("Mount failed: unable to start {name}");
        Failed::system(ErrorCode::Mount, &what, &why)
    })?;
    record.daemon = Some(started.daemon.identity.clone());
    record.mounted_as = Some(started.mounted_as.clone());
    let outcome = save(act, record)
        .and_then(|()| {
            wait_until_ready(&started, name, path, act.until).map_err(|why| {
                started.daemon.wait_for_words(Duration::from_secs(1));
                explain(act, credentials, &why)
            })
        })
        .and_then(|mount| {
            record.state = State::Mounted;
            record.note(&mount);
            keep(act, &record.source, credentials);
            save(act, record)
        });
    match &outcome {
        Ok(()) => announce(act, record),
        Err(_) => give_up(act, &started.daemon),
    }
    outcome
}

/// So that it can be mounted again when its daemon dies under its jobs. It can do without.
fn keep(act: &Act<'_>, source: &str, credentials: &Credentials) {
    let payload = credentials.to_payload();
    if let Err(why) = act.node.run_dir.keep_credentials(act.target, source, &payload) {
        log::warn!("unable to keep the credentials of {}: {why}", act.target);
    }
}

/// Those that it was mounted with before, for whoever mounts again what jobs use; a job has to be let
/// in by its own token.
fn kept(act: &Act<'_>, source: &str) -> Option<Credentials> {
    let kept = act.node.run_dir.kept_credentials(act.target, source);
    let kept = kept.filter(|_| act.is_settling).and_then(|kept| Secrets::kept(&kept));
    if kept.is_some() {
        log::info!("mounting {} with the credentials that it had", act.target);
    }
    kept
}

pub(super) fn fetch(act: &Act<'_>, source: &str) -> Result<Credentials, Failed> {
    let fetched = act.node.secrets.fetch(source, act.token, act.until);
    fetched.map_err(|why| Failed::new(ErrorCode::Credentials, why.0))
}

fn announce(act: &Act<'_>, record: &Record) {
    let pid = record.daemon.as_ref().map(|daemon| daemon.pid).unwrap_or_default();
    let name = act.node.s3.profile.program_name();
    log::info!("{name} spawned successfully for target {}", act.target);
    log::info!("  PID: {pid}");
    log::info!("  Mount path: {}", record.path.display());
    log::info!("  PID file: {}", act.node.run_dir.pid_file(act.target).display());
    log::info!("  Total tracked processes: {}", act.node.run_dir.tracked().len());
}

/// The daemon's own words, and whether they are about the credentials.
fn explain(act: &Act<'_>, credentials: &Credentials, why: &str) -> Failed {
    let log = fs::read(act.node.run_dir.daemon_log(act.target)).unwrap_or_default();
    // Blanked before it is cut, or half a key could stay.
    let words = last_words(&credentials.blank(&String::from_utf8_lossy(&log)));
    let name = act.node.s3.profile.program_name();
    let said = if words.is_empty() { String::new() } else { format!("; {name} said: {words}") };
    if blames_credentials(&words) {
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
