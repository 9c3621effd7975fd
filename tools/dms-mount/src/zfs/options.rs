//! How a request wants its pool imported: a list of what is allowed, as for NFS.

use std::fs;
use std::path::{Component, Path, PathBuf};

use dms_wire::{Access, Invalid};

use crate::settings;

const FIELD: &str = "backup_target.zfs_import_opts";

/// The journal keeps a text of this length, and `reconcile` imports with what it kept.
const MAX_OPTIONS: usize = 1024;

/// Options that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) access: Access,
    /// Where to look for the pool's devices; none: where zpool(8) looks by itself.
    pub(crate) device_dirs: Vec<PathBuf>,
    /// Which of several pools with the name.
    pub(crate) guid: Option<String>,
    /// Also a pool that another host has not exported.
    pub(crate) force: bool,
}

impl Options {
    /// Reads a list with commas between. Empty parts, and spaces around an option, say nothing.
    pub(crate) fn parse(text: &str, settings: &settings::Zfs) -> Result<Options, Invalid> {
        if text.len() > MAX_OPTIONS {
            return Err(Invalid(format!("{FIELD} is longer than {MAX_OPTIONS} bytes")));
        }
        let access = Access::of_options(text);
        let mut options = Options { access, device_dirs: Vec::new(), guid: None, force: false };
        let parts = text.split(',').map(|part| part.trim_matches(' '));
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if parts.contains(&"ro") && parts.contains(&"rw") {
            return Err(Invalid(format!("{FIELD} says both ro and rw")));
        }
        for part in parts {
            match part.split_once('=') {
                None if ["ro", "rw"].contains(&part) => {}
                None if part == "force" => options.force = true,
                Some(("device_dir", dir)) => options.device_dirs.push(device_dir(dir, settings)?),
                Some(("guid", guid)) if is_guid(guid) => options.guid = Some(guid.to_owned()),
                _ => {
                    let shown: String =
                        part.chars().take(40).flat_map(char::escape_default).collect();
                    return Err(Invalid(format!("{FIELD}: option {shown} is not allowed")));
                }
            }
        }
        Ok(options)
    }
}

fn is_guid(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
}

/// A directory that the operator has named, or one below it; not by a link to elsewhere. One that is
/// not there zpool(8) complains of.
fn device_dir(text: &str, settings: &settings::Zfs) -> Result<PathBuf, Invalid> {
    let dir = Path::new(text);
    let is_plain = dir.is_absolute()
        && dir.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir));
    let is_below = |path: &Path| {
        settings.device_dirs.iter().any(|allowed| {
            let real = fs::canonicalize(allowed);
            path.starts_with(allowed) || real.is_ok_and(|real| path.starts_with(real))
        })
    };
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if is_plain && is_below(dir) && is_below(&real) {
        return Ok(dir.to_owned());
    }
    let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    Err(Invalid(format!("{FIELD}: device_dir {shown} is not below DMS_ZFS_DEVICE_DIRS")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Invalid> {
        Options::parse(text, &settings::Zfs { device_dirs: vec!["/dev".into(), "/srv/d".into()] })
    }

    #[test]
    fn what_is_allowed_is_read() {
        let options = parse("").expect("nothing is asked");
        assert_eq!((options.access, options.force), (Access::ReadWrite, false));
        let options = parse(" ro ,,device_dir=/dev/disk, device_dir=/srv/d,guid=12,force");
        let options = options.expect("all of it is allowed");
        assert_eq!((options.access, options.force), (Access::ReadOnly, true));
        assert_eq!(options.device_dirs, [Path::new("/dev/disk"), Path::new("/srv/d")]);
        assert_eq!(options.guid.as_deref(), Some("12"));
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for bad in [
            "ro,rw",
            "RO",
            "f",
            "-f",
            "force=1",
            "readonly=on",
            "cachefile=/etc/x",
            "altroot=/",
            "device_dir",
            "device_dir=",
            "device_dir=dev",
            "device_dir=/etc",
            "device_dir=/devx",
            "device_dir=/dev/../etc",
            "device_dir=/srv",
            "device_dir=/dev/disk;x=/dev/fd/../..",
            "device_dir=/proc/self/root/dev/..",
            "guid=",
            "guid=-1",
            "guid=tank",
            "guid=99999999999999999999999",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(parse(&"ro,".repeat(400)).is_err());
    }

    #[test]
    fn a_link_leads_no_further_than_its_own_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("a fresh name");
        let settings = settings::Zfs { device_dirs: vec![dir.path().to_owned()] };
        let text = |name: &str| format!("device_dir={}", dir.path().join(name).display());
        assert!(Options::parse(&text(""), &settings).is_ok());
        assert!(Options::parse(&text("out"), &settings).is_err());
    }
}
