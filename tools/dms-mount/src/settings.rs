//! What only dms-mount is told by its environment.

use std::fs;
use std::path::{Path, PathBuf};

use dms_cli::Failure;

use crate::s3::Profile;

/// How S3 targets are mounted.
#[derive(Debug, Clone)]
pub(crate) struct S3 {
    /// `DMS_S3_PROGRAM`: the profile of the program. Default: s3vaultfuse, where it is installed,
    /// else s3fs.
    pub(crate) profile: Profile,
    /// `DMS_S3_CACHE_DIR`, default `/var/triliovault`: programs that need one get a directory for
    /// each target below it.
    pub(crate) cache_dir: PathBuf,
    pub(crate) owner: Owner,
}

/// Whose the files in a mount are, and who may enter it beside root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `DMS_MOUNT_OWNER`, `UID:GID`.
    pub(crate) ids: Option<(u32, u32)>,
    /// `DMS_MOUNT_UMASK`, in octal.
    pub(crate) umask: Option<u32>,
    /// `DMS_MOUNT_ALLOW_OTHER`; whoever has an owner or a umask wants it.
    pub(crate) allow_other: bool,
}

/// How NFS targets are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nfs {
    /// `DMS_ROOTWRAP_BIN` and `DMS_ROOTWRAP_CONF`: mount(8) is run by sudo(8) and this program, with
    /// this configuration, as OpenStack's services do.
    pub(crate) rootwrap: Option<(PathBuf, PathBuf)>,
}

impl Nfs {
    /// From the environment.
    pub(crate) fn from_env() -> Result<Nfs, Failure> {
        rootwrap(text("DMS_ROOTWRAP_BIN")?, text("DMS_ROOTWRAP_CONF")?).map_err(bad)
    }
}

fn rootwrap(program: Option<String>, configuration: Option<String>) -> Result<Nfs, String> {
    let absolute = |name: &str, value: String| match value.starts_with('/') {
        true => Ok(PathBuf::from(value)),
        false => Err(format!("{name} {value:?} is not absolute")),
    };
    let rootwrap = match (program, configuration) {
        (None, None) => None,
        (Some(program), Some(configuration)) => Some((
            absolute("DMS_ROOTWRAP_BIN", program)?,
            absolute("DMS_ROOTWRAP_CONF", configuration)?,
        )),
        (Some(_), None) => {
            return Err("DMS_ROOTWRAP_CONF is not set, but DMS_ROOTWRAP_BIN is".into());
        }
        (None, Some(_)) => {
            return Err("DMS_ROOTWRAP_BIN is not set, but DMS_ROOTWRAP_CONF is".into());
        }
    };
    Ok(Nfs { rootwrap })
}

/// An empty variable is as good as none.
fn text(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Some(value)),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(bad(format!("{name} is not UTF-8"))),
    }
}

impl S3 {
    /// From the environment, and the profile that it names.
    pub(crate) fn from_env() -> Result<S3, Failure> {
        let cache_dir = PathBuf::from(
            text("DMS_S3_CACHE_DIR")?.unwrap_or_else(|| "/var/triliovault".to_owned()),
        );
        if !cache_dir.is_absolute() {
            return Err(bad(format!("DMS_S3_CACHE_DIR {cache_dir:?} is not absolute")));
        }
        Ok(S3 {
            profile: match text("DMS_S3_PROGRAM")? {
                Some(name) => profile(&name)?,
                None => default_profile(),
            },
            cache_dir,
            owner: owner(
                text("DMS_MOUNT_OWNER")?.as_deref(),
                text("DMS_MOUNT_UMASK")?.as_deref(),
                text("DMS_MOUNT_ALLOW_OTHER")?.as_deref(),
            )
            .map_err(bad)?,
        })
    }
}

fn bad(text: String) -> Failure {
    Failure::permanent(text)
}

fn owner(
    ids: Option<&str>,
    umask: Option<&str>,
    allow_other: Option<&str>,
) -> Result<Owner, String> {
    let ids = match ids {
        None => None,
        Some(text) => {
            let pair = text.split_once(':').map(|(uid, gid)| (uid.parse(), gid.parse()));
            let Some((Ok(uid), Ok(gid))) = pair else {
                return Err(format!("DMS_MOUNT_OWNER {text:?} is not UID:GID"));
            };
            Some((uid, gid))
        }
    };
    let umask = match umask {
        None => None,
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(umask) if umask <= 0o777 => Some(umask),
            _ => return Err(format!("DMS_MOUNT_UMASK {text:?} is not an octal umask")),
        },
    };
    let allow_other = match allow_other {
        None => ids.is_some() || umask.is_some(),
        Some("1") => true,
        Some("0") => false,
        Some(text) => return Err(format!("DMS_MOUNT_ALLOW_OTHER {text:?} is neither 0 nor 1")),
    };
    Ok(Owner { ids, umask, allow_other })
}

/// The one that has a program here; if none has, the last says so when it is needed.
fn default_profile() -> Profile {
    let known = ["s3vaultfuse", "s3fs"].iter().filter_map(|name| Profile::built_in(name));
    let known: Vec<Profile> = known.collect();
    let installed = known.iter().find(|profile| profile.find_program().is_some());
    installed.or(known.last()).cloned().unwrap_or_default()
}

/// A profile by its name, or by the path of its file.
fn profile(name: &str) -> Result<Profile, Failure> {
    if !name.contains('/') {
        let unknown = || {
            let known: Vec<&str> = Profile::names().collect();
            let known = known.join(", ");
            bad(format!("DMS_S3_PROGRAM {name:?} is neither one of {known} nor a path"))
        };
        return Profile::built_in(name).ok_or_else(unknown);
    }
    let path = Path::new(name);
    let text = fs::read_to_string(path)
        .map_err(|why| bad(format!("unable to read {}: {why}", path.display())))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Profile::parse(&stem, &text).map_err(|why| bad(format!("{}: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rootwrap_is_a_program_and_its_configuration() {
        let read = |program: Option<&str>, configuration: Option<&str>| {
            rootwrap(program.map(str::to_owned), configuration.map(str::to_owned))
        };
        assert_eq!(read(None, None), Ok(Nfs::default()));
        let both = read(Some("/usr/bin/rw"), Some("/etc/rw.conf")).expect("both are absolute");
        assert_eq!(both.rootwrap, Some(("/usr/bin/rw".into(), "/etc/rw.conf".into())));
        for (program, configuration) in [
            (Some("/usr/bin/rw"), None),
            (None, Some("/etc/rw.conf")),
            (Some("rw"), Some("/etc/rw.conf")),
            (Some("/usr/bin/rw"), Some("-c")),
        ] {
            assert!(read(program, configuration).is_err(), "{program:?} {configuration:?}");
        }
    }

    #[test]
    fn an_owner_lets_others_in_unless_told_otherwise() {
        let read = |ids, umask, others| owner(ids, umask, others);
        assert_eq!(read(None, None, None), Ok(Owner::default()));
        let owned = read(Some("1000:100"), Some("027"), None).expect("it is well-formed");
        assert_eq!((owned.ids, owned.umask), (Some((1000, 100)), Some(0o27)));
        assert!(owned.allow_other);
        assert!(!read(Some("0:0"), None, Some("0")).expect("it is well-formed").allow_other);
        for (ids, umask, others) in [
            (Some("1000"), None, None),
            (Some("nova:nova"), None, None),
            (Some("-1:0"), None, None),
            (None, Some("9"), None),
            (None, Some("1777"), None),
            (None, None, Some("yes")),
        ] {
            assert!(read(ids, umask, others).is_err(), "{ids:?} {umask:?} {others:?}");
        }
    }
}
