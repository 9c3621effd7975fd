//! S3 through s3fs: how it is called, when it is ready, and why it is not.
//!
//! Its exit status tells nothing (0 on wrong credentials, too), and its mount shows up before
//! anything was checked. So: ready is a mount in mountinfo *and* I/O that reaches the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dms_wire::{Deadline, TargetId};

use crate::credentials::Credentials;
use crate::daemon::{self, Daemon, Identity, Launch};
use crate::mountinfo::{Mount, Mounts, Watch};
use crate::probe::{self, Depth, Health};

/// The program's name.
pub(crate) const PROGRAM: &str = "s3fs";

/// How long a new mount may take until its first I/O is answered.
const READY: Duration = Duration::from_secs(12);

/// How long one that gave up may take to say why and end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Between two looks at whether the daemon still runs; the mount itself wakes us.
const GLANCE: Duration = Duration::from_millis(25);

/// The mount's source in mountinfo, up to the bucket: it says which target this is.
fn source_prefix(target: &TargetId) -> String {
    let mut prefix = String::from("dms:");
    for byte in target.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            prefix.push(char::from(byte));
        } else {
            // Neither a separator of the option list nor one of mountinfo.
            prefix.push_str(&format!("%{byte:02X}"));
        }
    }
    prefix.push('/');
    prefix
}

/// Whether this is the target's mount.
pub(crate) fn is_ours(mount: &Mount, target: &TargetId) -> bool {
    mount.fstype == "fuse.s3fs" && mount.source.starts_with(&source_prefix(target))
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

/// The bucket that a mount of ours is of.
pub(crate) fn bucket_of(mount: &Mount) -> Option<&str> {
    mount.source.split_once('/').map(|(_, bucket)| bucket)
}

/// The target's daemon at `path`, by its command line.
pub(crate) fn find_daemon(target: &TargetId, path: &Path) -> Option<Identity> {
    daemon::find(PROGRAM, path, &format!("fsname={}", source_prefix(target)))
}

/// Where the program is, by the search path that daemons get.
pub(crate) fn find_program() -> Option<PathBuf> {
    let candidates = SEARCH_PATH.split(':').map(|dir| Path::new(dir).join(PROGRAM));
    candidates.into_iter().find(|path| path.is_file())
}

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the daemon for the target at `path`.
pub(crate) fn start(
    program: &Path,
    target: &TargetId,
    credentials: &Credentials,
    path: &Path,
    log: &Path,
) -> std::io::Result<Daemon> {
    let arguments = [
        "-f".to_owned(),
        credentials.bucket.clone(),
        path.to_string_lossy().into_owned(),
        "-o".to_owned(),
        options(target, credentials),
    ];
    let environment = [
        ("AWS_ACCESS_KEY_ID", credentials.access_key.reveal()),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_key.reveal()),
        ("PATH", SEARCH_PATH),
        // It looks for credentials of its own in the home directory: there are none.
        ("HOME", "/nonexistent"),
        ("LANG", "C.UTF-8"),
    ];
    let launch = Launch { arguments: &arguments, environment: &environment };
    Daemon::start(program, &launch, log)
}

fn options(target: &TargetId, credentials: &Credentials) -> String {
    let mut options = vec![
        format!("fsname={}{}", source_prefix(target), credentials.bucket),
        "subtype=s3fs".to_owned(),
        "nosuid".to_owned(),
        "nodev".to_owned(),
        // Errors, as they happen: through a pipe or file stdout would be held back.
        "dbglevel=err".to_owned(),
        "logfile=/dev/stderr".to_owned(),
        "connect_timeout=5".to_owned(),
    ];
    if let Some(endpoint) = &credentials.endpoint {
        options.push(format!("url={endpoint}"));
        options.push("use_path_request_style".to_owned());
    }
    if let Some(region) = &credentials.region {
        options.push(format!("endpoint={region}"));
    }
    if !credentials.verify_tls {
        options.push("no_check_certificate".to_owned());
        options.push("ssl_verify_hostname=0".to_owned());
    }
    options.join(",")
}

/// Waits until the mount is there and its I/O is answered. The error says what was the matter.
pub(crate) fn wait_until_ready(
    daemon: &Daemon,
    target: &TargetId,
    path: &Path,
    until: Deadline,
) -> Result<Mount, String> {
    let end = Deadline::after(READY).min(until);
    let broken = |why: std::io::Error| why.to_string();
    let watch = Watch::start().map_err(broken)?;
    let ours = || -> Result<Option<Mount>, String> {
        let mounts = Mounts::read().map_err(broken)?;
        Ok(mounts.at(path).filter(|mount| is_ours(mount, target)).cloned())
    };
    let mount = loop {
        if let Some(mount) = ours()? {
            break mount;
        }
        if let Some(status) = daemon.has_ended() {
            return Err(format!("{PROGRAM} ended ({status}) without mounting"));
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
            return Err(format!("{PROGRAM} gave up"));
        }
    }
    match ours()? {
        Some(still) if still == mount && daemon.identity.is_alive() => Ok(mount),
        _ => {
            daemon.wait(end.left().clamp(GLANCE, LAST_WORDS));
            Err(format!("{PROGRAM} gave up"))
        }
    }
}

/// What the daemon said about an error, in one line of bearable length.
pub(crate) fn last_words(log: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for line in log.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let said = match line.split_once("[CRT] ").or_else(|| line.split_once("[ERR] ")) {
            // `file.cpp:function(123): what it says`
            Some((_, said)) => said.split_once("): ").map_or(said, |(_, said)| said),
            None if line.contains("[INF] ") => continue,
            None => line,
        };
        let noise = ["change debug level", "Exiting FUSE event loop", "### giving up"];
        if !noise.iter().any(|noise| said.contains(noise)) && !words.contains(&said) {
            words.push(said);
        }
    }
    let tail = words.split_off(words.len().saturating_sub(4));
    let text = tail.join("; ");
    let from = text.char_indices().rev().nth(700).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

/// Whether it was the credentials that the storage did not like.
pub(crate) fn blames_credentials(words: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "invalid credentials",
        "response code 403",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "NotSignedUp",
        "AccessDenied",
        "security credentials",
    ];
    SIGNS.iter().any(|sign| words.contains(sign))
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
            let source = format!("{}bucket", source_prefix(&target(id)));
            assert!(!source.contains([',', ' ', '\\']), "{source}");
            assert!(is_ours(&mount(&source), &target(id)));
            assert_eq!(target_of(&mount(&source)).as_deref(), Some(id));
        }
        assert!(!is_ours(&mount("dms:t1/b"), &target("t")));
        assert!(!is_ours(&mount("s3fs"), &target("s3fs")));
        assert_eq!(target_of(&mount("s3fs")), None);
    }

    #[test]
    fn the_last_words_are_the_errors_without_their_decoration() {
        let log = "2026 [INF] s3fs version\n2026 [CRT] s3fs_logger.cpp:L(1): change debug level x\n\
            2026 [ERR] curl.cpp:R(2): HTTP response code 403, returning EPERM\n\
            2026 [CRT] s3fs.cpp:c(3): invalid credentials(host=h) - result\n\
            2026 [ERR] s3fs.cpp:s3fs_exit_fuseloop(3372): Exiting FUSE event loop due to errors\n";
        let words = last_words(log);
        assert_eq!(
            words,
            "HTTP response code 403, returning EPERM; invalid credentials(host=h) - result"
        );
        assert!(blames_credentials(&words) && !blames_credentials("bucket or key not found"));
        assert!(last_words(&"ü".repeat(3000)).chars().count() <= 701);
        assert_eq!(last_words(""), "");
    }
}
