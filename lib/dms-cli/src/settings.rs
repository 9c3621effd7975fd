//! The settings that the tools share: the environment, over defaults. Read once, in `main`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Component, PathBuf};
use std::time::Duration;

use crate::OpenStack;
use crate::host::node_name;

/// Every setting, with a value.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `DMS_DB_URL`: the ledger. Default: SQLite, `ledger.db` in the state directory.
    pub db_url: String,
    /// `DMS_RABBITMQ_URL`, no default: the broker. For the tools that speak to it.
    pub rabbitmq_url: Option<String>,
    /// For the tools that fetch secrets from a key manager.
    pub openstack: OpenStack,
    /// `DMS_LOCK_DIR`, default `/var/lock/trilio-dms`: one per host, never shared between hosts.
    pub lock_dir: PathBuf,
    /// `DMS_LOCK_TIMEOUT`, in seconds, default 300: how long to wait for a lock.
    pub lock_timeout: Duration,
    /// `DMS_REQUEST_TIMEOUT`, in seconds, default 300: how long one request may take.
    pub request_timeout: Duration,
    /// `DMS_MOUNT_BASE` (or `DMS_MOUNT_BASE_PATH`), default
    /// `/var/lib/trilio/triliovault-mounts`: targets are mounted below it, and nowhere else.
    /// Several, separated by colons; the first is where a request without a path is mounted.
    pub mount_bases: Vec<PathBuf>,
    /// `DMS_NODE_ID`, default `uname -n`.
    pub node_id: String,
    /// `DMS_RUN_DIR`, default `/run/dms`: PID files, records of mounts, act locks.
    pub run_dir: PathBuf,
    /// `DMS_SECRET_DIR`, off by default: `file://` secrets are read below it.
    pub secret_dir: Option<PathBuf>,
}

/// A setting whose value is no good. It names the variable; the value is quoted where it cannot be
/// secret.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingError(pub(crate) String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SettingError> for crate::Failure {
    fn from(error: SettingError) -> Self {
        crate::Failure::permanent(error.0)
    }
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// Names the first variable whose value is no good.
    pub fn from_env() -> Result<Self, SettingError> {
        Settings::read(|name| std::env::var_os(name))
    }

    /// The first mount base, where a request without a path is mounted.
    pub fn mount_base(&self) -> &str {
        // `read` lets no base through that is not UTF-8.
        self.mount_bases.first().and_then(|base| base.to_str()).unwrap_or_default()
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingError> {
        // An empty variable is as good as none, as in every shell script.
        let text = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.into_string() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(SettingError(format!("{name} is not UTF-8"))),
            },
        };
        let absolute = |name: &str, default: &str| {
            let path = PathBuf::from(text(name)?.unwrap_or_else(|| default.to_owned()));
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(SettingError(format!("{name} {path:?} is not absolute")))
            }
        };
        let state_dir = absolute("DMS_STATE_DIR", "/var/lib/trilio-dms")?;
        let bases = match text("DMS_MOUNT_BASE")? {
            Some(bases) => mount_bases("DMS_MOUNT_BASE", &bases)?,
            None => mount_bases(
                "DMS_MOUNT_BASE_PATH",
                text("DMS_MOUNT_BASE_PATH")?.as_deref().unwrap_or(MOUNT_BASE),
            )?,
        };
        let request_timeout = timeout("DMS_REQUEST_TIMEOUT", text("DMS_REQUEST_TIMEOUT")?)?;
        if request_timeout.is_zero() {
            return Err(SettingError("DMS_REQUEST_TIMEOUT is 0: no request could be done".into()));
        }
        Ok(Settings {
            db_url: text("DMS_DB_URL")?
                .unwrap_or_else(|| format!("sqlite:///{}", state_dir.join("ledger.db").display())),
            lock_dir: absolute("DMS_LOCK_DIR", "/var/lock/trilio-dms")?,
            lock_timeout: timeout("DMS_LOCK_TIMEOUT", text("DMS_LOCK_TIMEOUT")?)?,
            request_timeout,
            mount_bases: bases,
            rabbitmq_url: text("DMS_RABBITMQ_URL")?,
            openstack: OpenStack::read(text, absolute)?,
            node_id: text("DMS_NODE_ID")?.unwrap_or_else(node_name),
            run_dir: absolute("DMS_RUN_DIR", "/run/dms")?,
            secret_dir: match text("DMS_SECRET_DIR")? {
                None => None,
                Some(dir) => Some(absolute("DMS_SECRET_DIR", &dir)?),
            },
        })
    }
}

const MOUNT_BASE: &str = "/var/lib/trilio/triliovault-mounts";

fn mount_bases(name: &str, value: &str) -> Result<Vec<PathBuf>, SettingError> {
    let bases: Vec<PathBuf> =
        value.split(':').filter(|base| !base.is_empty()).map(PathBuf::from).collect();
    for base in &bases {
        let mut parts = base.components();
        let rooted = parts.next() == Some(Component::RootDir);
        let plain = parts.all(|part| matches!(part, Component::Normal(_)));
        if !rooted || !plain || base.parent().is_none() {
            let text = format!("{name} {base:?} is not a directory below / without \"..\"");
            return Err(SettingError(text));
        }
    }
    if bases.is_empty() {
        return Err(SettingError(format!("{name} names no directory")));
    }
    Ok(bases)
}

/// A time that is given in seconds: from 0 to a year, so that it can be added to any clock.
pub fn seconds(seconds: f64) -> Option<Duration> {
    const YEAR: f64 = 365.0 * 86_400.0;
    (0.0..=YEAR).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// 300 seconds unless told.
fn timeout(name: &str, value: Option<String>) -> Result<Duration, SettingError> {
    let Some(value) = value else { return Ok(Duration::from_secs(300)) };
    let timeout = value.parse().ok().and_then(seconds);
    timeout.ok_or_else(|| SettingError(format!("{name} {value:?} is not a number of seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, SettingError> {
        Settings::read(|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_defaults_are_those_of_the_pages() {
        let settings = read(&[]).expect("no variable, nothing wrong");
        assert_eq!(settings.db_url, "sqlite:////var/lib/trilio-dms/ledger.db");
        assert_eq!(settings.lock_dir, PathBuf::from("/var/lock/trilio-dms"));
        assert_eq!(settings.lock_timeout, Duration::from_secs(300));
        assert_eq!(settings.request_timeout, Duration::from_secs(300));
        assert_eq!(settings.mount_base(), "/var/lib/trilio/triliovault-mounts");
        assert_eq!(settings.run_dir, PathBuf::from("/run/dms"));
        assert_eq!(settings.node_id, node_name());
        assert_eq!(settings.secret_dir, None);
        let openstack = OpenStack { interface: "public".into(), ..OpenStack::default() };
        assert_eq!(settings.openstack, openstack);
    }

    #[test]
    fn several_mount_bases_are_separated_by_colons() {
        let settings = read(&[("DMS_MOUNT_BASE", "/a:/b/c")]).expect("both absolute");
        assert_eq!(settings.mount_bases, [PathBuf::from("/a"), PathBuf::from("/b/c")]);
        assert_eq!(settings.mount_base(), "/a");
    }

    #[test]
    fn a_value_that_is_no_good_is_refused_by_name() {
        for (name, value) in [
            ("DMS_LOCK_TIMEOUT", "soon"),
            ("DMS_REQUEST_TIMEOUT", "-1"),
            ("DMS_MOUNT_BASE", "relative"),
            ("DMS_MOUNT_BASE", "/"),
            ("DMS_MOUNT_BASE", ":"),
            ("DMS_MOUNT_BASE", "/srv/../etc"),
            ("DMS_MOUNT_BASE_PATH", "relative"),
            ("DMS_REQUEST_TIMEOUT", "0"),
            ("DMS_LOCK_DIR", "locks"),
            ("DMS_SECRET_DIR", "."),
            ("DMS_CA_FILE", "ca.pem"),
            ("DMS_OS_INTERFACE", "publicURL"),
            ("DMS_TLS_INSECURE", "yes"),
        ] {
            let why = read(&[(name, value)]).err().map(|why| why.to_string()).unwrap_or_default();
            assert!(why.starts_with(name), "{name}={value}: {why:?}");
        }
    }
}
