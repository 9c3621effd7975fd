//! S3 through a FUSE program: how it is started, when it is ready, and whose mount is whose.
//!
//! Their exit status tells nothing (0 on wrong credentials, too), and their mount shows up before
//! anything was checked. So: ready is a mount in mountinfo *and* I/O that reaches the server.

mod launch;
mod profile;
mod storage;
mod words;

pub(crate) use launch::{get_ready, launch};
pub(crate) use profile::{Profile, SEARCH_PATH, find_in_search_path};
pub(crate) use storage::{Known, refuse_other_storage};
pub(crate) use words::{blames_credentials, last_words};

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use dms_wire::{Deadline, Secret, TargetId};

use crate::daemon::{self, Daemon, Identity, Launch};
use crate::mountinfo::{Mount, Mounts, Watch, is_mount_point, is_there};
use crate::probe::{self, Depth, Health};
use crate::scope::Scope;
use crate::secrets::Credentials;
use crate::settings;
use profile::Values;

/// How long a new mount may take until its first I/O is answered.
const READY: Duration = Duration::from_secs(12);

/// How long one that gave up may take to say why and end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Between two looks at whether the daemon still runs; the mount itself wakes us.
const GLANCE: Duration = Duration::from_millis(25);

/// The target's id as it stands in the source of a mount: neither a separator of an option list nor
/// one of mountinfo.
fn mark(target: &TargetId) -> String {
    let mut mark = String::new();
    for byte in target.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            mark.push(char::from(byte));
        } else {
            mark.push_str(&format!("%{byte:02X}"));
        }
    }
    mark
}

/// Whether the mount says of itself that it is the target's. Not all programs let one say that.
pub(crate) fn is_marked(mount: &Mount, target: &TargetId) -> bool {
    mount.fstype.starts_with("fuse.") && mount.source.starts_with(&format!("dms:{}/", mark(target)))
}

/// The target that a mount is of, as far as its source says.
pub(crate) fn target_of(mount: &Mount) -> Option<String> {
    let encoded = mount.source.strip_prefix("dms:")?.split('/').next()?;
    let mut id = Vec::new();
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            id.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            id.push(byte);
        }
    }
    String::from_utf8(id).ok()
}

/// The bucket that a marked mount is of.
pub(crate) fn bucket_of(mount: &Mount) -> Option<&str> {
    mount.source.strip_prefix("dms:")?.split_once('/').map(|(_, bucket)| bucket)
}

/// The variables by which a daemon is found again when its record is lost.
const TARGET: &str = "DMS_TARGET_ID";
const PATH: &str = "DMS_MOUNT_PATH";

/// The daemon that we have started for the target at `path`, by its environment.
pub(crate) fn find_own_daemon(target: &TargetId, path: &Path) -> io::Result<Option<Identity>> {
    let path = path.display();
    daemon::find_own(&[format!("{TARGET}={target}"), format!("{PATH}={path}")])
}

/// The one that the Python server has started for `path`.
pub(crate) fn find_their_daemon(path: &Path) -> io::Result<Option<Identity>> {
    daemon::find(&[format!("vault_data_directory={}", path.display())])
}

/// A daemon that is on its way, and what its mount will look like.
pub(crate) struct Started {
    pub(crate) daemon: Daemon,
    /// File system type and source.
    pub(crate) mounted_as: (String, String),
}

/// Starts the daemon for the target at `path`, its words going to `log`.
pub(crate) fn start(
    program: &Path,
    settings: &settings::S3,
    target: &TargetId,
    credentials: &Credentials,
    path: &Path,
    log: &Path,
) -> io::Result<Started> {
    let profile = &settings.profile;
    let values = values(settings, target, credentials, path);
    if profile.wants("cache_directory") {
        let directory = settings.cache_dir.join(target.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Its whole environment: of ours it gets nothing. It might look for credentials of its own in
    // the home directory: there are none.
    let mut environment: Vec<(String, Secret)> = [
        ("PATH", SEARCH_PATH.to_owned()),
        ("HOME", "/nonexistent".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        (TARGET, target.to_string()),
        (PATH, path.to_string_lossy().into_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), Secret::new(value)))
    .into();
    environment.extend(profile.environment(&values));
    let launch = Launch {
        scope: settings.in_scope.then(|| Scope::new(target, path)).transpose()?,
        arguments: &profile.arguments(&values),
        environment: &environment,
    };
    let mounted_as = profile.mounted_as(&values);
    Ok(Started { daemon: Daemon::start(program, &launch, log)?, mounted_as })
}

/// What a profile may ask for.
fn values(
    settings: &settings::S3,
    target: &TargetId,
    credentials: &Credentials,
    path: &Path,
) -> Values {
    let owner = &settings.owner;
    let flag = |is_set: bool| is_set.then(String::new);
    let cache = settings.cache_dir.join(target.as_str());
    let values = [
        ("target", Some(mark(target))),
        ("mount_path", Some(path.to_string_lossy().into_owned())),
        ("cache_directory", Some(cache.to_string_lossy().into_owned())),
        ("allow_other", flag(owner.allow_other)),
        ("uid", owner.ids.map(|(uid, _)| uid.to_string())),
        ("gid", owner.ids.map(|(_, gid)| gid.to_string())),
        ("umask", owner.umask.map(|umask| format!("{umask:03o}"))),
    ];
    let given = values.into_iter().filter_map(|(name, value)| Some((name, Secret::new(value?))));
    let mut values: Values = given.collect();
    values.extend(credentials.values());
    values
}

/// Waits until the mount is there and its I/O is answered. The error says what was the matter.
pub(crate) fn wait_until_ready(
    started: &Started,
    program: &str,
    path: &Path,
    until: Deadline,
) -> Result<Mount, String> {
    let daemon = &started.daemon;
    let end = Deadline::after(READY).min(until);
    let broken = |why: std::io::Error| why.to_string();
    let watch = Watch::start().map_err(broken)?;
    let ours = || -> Result<Option<Mount>, String> {
        let mounts = Mounts::read().map_err(broken)?;
        let (fstype, source) = &started.mounted_as;
        let is_it = |mount: &&Mount| mount.is_of_type(fstype) && mount.source == *source;
        Ok(mounts.at(path).filter(is_it).cloned())
    };
    let mount = loop {
        // Else each that is mounted elsewhere would have us read them all.
        let may_be = is_mount_point(path) != Some(false);
        if let Some(mount) = may_be.then(&ours).transpose()?.flatten() {
            break mount;
        }
        if let Some(status) = daemon.has_ended() {
            return Err(format!("{program} ended ({status}) without mounting"));
        }
        if end.passed() {
            return Err("timeout: not mounted in time".to_owned());
        }
        watch.wait(GLANCE.min(end.left())).map_err(broken)?;
    };
    match probe::health(&mount, Depth::Server, end.left()).map_err(broken)? {
        Health::Alive => {}
        Health::Hung => return Err("timeout: mounted, but its server does not answer".to_owned()),
        // Gone so quickly that the bare directory answered, or hidden: it is not usable.
        Health::Gone | Health::Covered => {
            // It is about to say why.
            daemon.wait(end.left().clamp(GLANCE, LAST_WORDS));
            return Err(format!("{program} gave up"));
        }
    }
    if is_there(&mount).map_err(broken)? && daemon.identity.is_alive() {
        return Ok(mount);
    }
    daemon.wait(end.left().clamp(GLANCE, LAST_WORDS));
    Err(format!("{program} gave up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str) -> TargetId {
        TargetId::try_from(id.to_owned()).expect("a valid id")
    }

    fn mount(source: &str) -> Mount {
        Mount {
            id: 1,
            device: "0:1".into(),
            path: "/m".into(),
            fstype: "fuse.s3fs".into(),
            source: source.into(),
        }
    }

    #[test]
    fn a_mount_is_recognised_by_its_target() {
        for id in ["t1", "a b,c", "ü%", "x\\y"] {
            let source = format!("dms:{}/bucket", mark(&target(id)));
            assert!(!source.contains([',', ' ', '\\']), "{source}");
            assert!(is_marked(&mount(&source), &target(id)));
            assert_eq!(target_of(&mount(&source)).as_deref(), Some(id));
        }
        assert!(!is_marked(&mount("dms:t1/b"), &target("t")));
        assert!(!is_marked(&mount("s3fs"), &target("s3fs")));
        assert_eq!(target_of(&mount("s3fs")), None);
    }
}
