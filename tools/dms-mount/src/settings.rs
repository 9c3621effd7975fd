//! The settings that only dms-mount has.

use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::ValueEnum;
use dms_cli::{Config, Failure, SettingError, Value};

use crate::cli::PolicyArgs;
use crate::s3::Profile;
use crate::scope;
use crate::umount::{OnBusy, OnHung, Policy};

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
    /// `DMS_MOUNT_SCOPE`, default 1 where systemd is process 1: daemons live in scopes of their own.
    pub(crate) in_scope: bool,
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
    /// `DMS_NFS_EXEC`, default 0: programs may be run from there.
    pub(crate) may_exec: bool,
}

impl Nfs {
    /// From the settings.
    pub(crate) fn read(config: &Config) -> Result<Nfs, Failure> {
        let (program, configuration) =
            (config.get("DMS_ROOTWRAP_BIN")?, config.get("DMS_ROOTWRAP_CONF")?);
        let rootwrap = match (program, configuration) {
            (None, None) => None,
            (Some(program), Some(configuration)) => {
                Some((program.absolute()?, configuration.absolute()?))
            }
            (Some(_), None) => return Err(half("DMS_ROOTWRAP_CONF", "DMS_ROOTWRAP_BIN")),
            (None, Some(_)) => return Err(half("DMS_ROOTWRAP_BIN", "DMS_ROOTWRAP_CONF")),
        };
        let may_exec = config.get_or("DMS_NFS_EXEC", || "0".to_owned())?.yes_or_no()?;
        Ok(Nfs { rootwrap, may_exec })
    }
}

/// How ZFS pools are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zfs {
    /// `DMS_ZFS_DEVICE_DIRS`, with colons between, default `/dev`: a request may have a pool's
    /// devices looked for in these directories, and below them.
    pub(crate) device_dirs: Vec<PathBuf>,
}

impl Zfs {
    /// From the settings.
    pub(crate) fn read(config: &Config) -> Result<Zfs, Failure> {
        let dirs = config.get_or("DMS_ZFS_DEVICE_DIRS", || "/dev".to_owned())?;
        let parts = dirs.text.split(':').filter(|dir| !dir.is_empty());
        let device_dirs: Vec<PathBuf> = parts.map(PathBuf::from).collect();
        let is_plain = |dir: &PathBuf| {
            dir.is_absolute() && !dir.components().any(|part| part == Component::ParentDir)
        };
        match device_dirs.iter().find(|dir| !is_plain(dir)) {
            None => Ok(Zfs { device_dirs }),
            Some(_) => Err(dirs.refuse("names a directory that is relative or has ..").into()),
        }
    }
}

fn half(missing: &str, set: &str) -> Failure {
    Failure::permanent(format!("{missing} is not set, but {set} is"))
}

/// How far an unmount may go: as the command line says, else the settings.
pub(crate) fn policy(config: &Config, flags: PolicyArgs) -> Result<Policy, Failure> {
    let on_busy = word::<OnBusy>(config.get("DMS_ON_BUSY")?)?;
    let on_hung = word::<OnHung>(Some(config.get_or("DMS_ON_HUNG", || "leave".to_owned())?))?;
    let step = config.get_or("DMS_UMOUNT_TIMEOUT", || "60".to_owned())?;
    let step = match flags.umount_timeout {
        None => (step.seconds()?, step.refuse("is no time")),
        Some(time) => {
            let value = Value { text: time.to_string(), name: "--umount-timeout".to_owned() };
            (value.seconds()?, value.refuse("is no time"))
        }
    };
    match step {
        (step, why) if step.is_zero() => Err(why.into()),
        (step, _) => Ok(Policy {
            on_busy: flags.on_busy.or(on_busy),
            on_hung: flags.on_hung.or(on_hung).unwrap_or(OnHung::Leave),
            step,
        }),
    }
}

/// One of a few words.
fn word<T: ValueEnum>(value: Option<Value>) -> Result<Option<T>, SettingError> {
    let Some(value) = value else { return Ok(None) };
    let parsed = T::from_str(&value.text, false).map(Some);
    parsed.map_err(|_| {
        let known = T::value_variants().iter().filter_map(T::to_possible_value);
        let known: Vec<String> = known.map(|word| word.get_name().to_owned()).collect();
        value.refuse(&format!("is none of {}", known.join(", ")))
    })
}

impl S3 {
    /// From the settings, and the profile that they name.
    pub(crate) fn read(config: &Config) -> Result<S3, Failure> {
        let cache_dir = config.get_or("DMS_S3_CACHE_DIR", || "/var/triliovault".to_owned())?;
        Ok(S3 {
            profile: match config.get("DMS_S3_PROGRAM")? {
                Some(name) => profile(&name)?,
                None => default_profile(),
            },
            cache_dir: cache_dir.absolute()?,
            owner: Owner::read(config)?,
            in_scope: config.get_or("DMS_MOUNT_SCOPE", booted)?.yes_or_no()?,
        })
    }
}

/// 1 where systemd is process 1.
fn booted() -> String {
    u8::from(Path::new(scope::BOOTED).is_dir()).to_string()
}

impl Owner {
    fn read(config: &Config) -> Result<Owner, SettingError> {
        let ids = config.get("DMS_MOUNT_OWNER")?.map(|value| ids(&value)).transpose()?;
        let umask = config.get("DMS_MOUNT_UMASK")?.map(|value| umask(&value)).transpose()?;
        let allow_other = match config.get("DMS_MOUNT_ALLOW_OTHER")? {
            None => ids.is_some() || umask.is_some(),
            Some(value) => value.yes_or_no()?,
        };
        Ok(Owner { ids, umask, allow_other })
    }
}

fn ids(value: &Value) -> Result<(u32, u32), SettingError> {
    let pair = value.text.split_once(':').map(|(uid, gid)| (uid.parse(), gid.parse()));
    match pair {
        Some((Ok(uid), Ok(gid))) => Ok((uid, gid)),
        _ => Err(value.refuse("is not UID:GID")),
    }
}

fn umask(value: &Value) -> Result<u32, SettingError> {
    match u32::from_str_radix(&value.text, 8) {
        Ok(umask) if umask <= 0o777 => Ok(umask),
        _ => Err(value.refuse("is not an octal umask")),
    }
}

/// The one that has a program here; if none has, the last says so when it is needed.
fn default_profile() -> Profile {
    let known = ["s3vaultfuse", "s3fs"].iter().filter_map(|name| Profile::built_in(name));
    let known: Vec<Profile> = known.collect();
    let installed = known.iter().find(|profile| profile.find_program().is_some());
    installed.or(known.last()).cloned().unwrap_or_default()
}

/// A profile by its name, or by the path of its file.
fn profile(value: &Value) -> Result<Profile, Failure> {
    let name = &value.text;
    if !name.contains('/') {
        let known: Vec<&str> = Profile::names().collect();
        let why = || value.refuse(&format!("is neither one of {} nor a path", known.join(", ")));
        return Ok(Profile::built_in(name).ok_or_else(why)?);
    }
    let path = Path::new(name);
    let permanent = |why: String| Failure::permanent(why);
    let text = fs::read_to_string(path)
        .map_err(|why| permanent(format!("unable to read {}: {why}", path.display())))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Profile::parse(&stem, &text).map_err(|why| permanent(format!("{}: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn config(vars: &[(&'static str, &'static str)]) -> Config {
        let vars = vars.to_vec();
        Config::of(move |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn rootwrap_is_a_program_and_its_configuration() {
        let read = |program, configuration| {
            Nfs::read(&config(&[
                ("DMS_ROOTWRAP_BIN", program),
                ("DMS_ROOTWRAP_CONF", configuration),
            ]))
        };
        assert_eq!(read("", "").ok(), Some(Nfs::default()));
        let both = read("/usr/bin/rw", "/etc/rw.conf").expect("both are absolute");
        assert_eq!(both.rootwrap, Some(("/usr/bin/rw".into(), "/etc/rw.conf".into())));
        for (program, configuration) in [
            ("/usr/bin/rw", ""),
            ("", "/etc/rw.conf"),
            ("rw", "/etc/rw.conf"),
            ("/usr/bin/rw", "-c"),
        ] {
            assert!(read(program, configuration).is_err(), "{program:?} {configuration:?}");
        }
    }

    #[test]
    fn an_owner_lets_others_in_unless_told_otherwise() {
        let read = |ids, umask, others| {
            Owner::read(&config(&[
                ("DMS_MOUNT_OWNER", ids),
                ("DMS_MOUNT_UMASK", umask),
                ("DMS_MOUNT_ALLOW_OTHER", others),
            ]))
        };
        assert_eq!(read("", "", ""), Ok(Owner::default()));
        let owned = read("1000:100", "027", "").expect("it is well-formed");
        assert_eq!((owned.ids, owned.umask), (Some((1000, 100)), Some(0o27)));
        assert!(owned.allow_other);
        assert!(!read("0:0", "", "0").expect("it is well-formed").allow_other);
        for (ids, umask, others) in [
            ("1000", "", ""),
            ("nova:nova", "", ""),
            ("-1:0", "", ""),
            ("", "9", ""),
            ("", "1777", ""),
            ("", "", "yes"),
        ] {
            assert!(read(ids, umask, others).is_err(), "{ids:?} {umask:?} {others:?}");
        }
    }

    #[test]
    fn the_command_line_beats_the_settings() {
        let set = config(&[("DMS_ON_BUSY", "force"), ("DMS_UMOUNT_TIMEOUT", "5")]);
        let read = policy(&set, PolicyArgs::default()).expect("they are well-formed");
        assert_eq!((read.on_busy, read.step.as_secs()), (Some(OnBusy::Force), 5));
        let flags = PolicyArgs { on_busy: Some(OnBusy::Fail), ..PolicyArgs::default() };
        assert_eq!(policy(&set, flags).expect("well-formed").on_busy, Some(OnBusy::Fail));
        for (name, value) in
            [("DMS_ON_BUSY", "ask"), ("DMS_ON_HUNG", ""), ("DMS_UMOUNT_TIMEOUT", "0")]
        {
            let read = policy(&config(&[(name, value)]), PolicyArgs::default());
            assert_eq!(read.is_err(), !value.is_empty(), "{name}={value}");
        }
    }
}
