//! The settings that the tools share. Read once, in `main`.

use std::fmt;
use std::path::{Component, PathBuf};
use std::time::Duration;

use crate::OpenStack;
use crate::config::{Config, Value};
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
pub struct SettingError(pub String);

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
    /// The first mount base, where a request without a path is mounted.
    pub fn mount_base(&self) -> &str {
        // `read` lets no base through that is not UTF-8.
        self.mount_bases.first().and_then(|base| base.to_str()).unwrap_or_default()
    }

    /// From wherever they stand.
    ///
    /// # Errors
    /// Names the first whose value is no good.
    pub fn read(config: &Config) -> Result<Self, SettingError> {
        let absolute = |name, default: &str| config.get_or(name, || default.to_owned())?.absolute();
        let time = |name| config.get_or(name, || "300".to_owned());
        let state_dir = absolute("DMS_STATE_DIR", "/var/lib/trilio-dms")?;
        let ledger = || format!("sqlite:///{}", state_dir.join("ledger.db").display());
        let request_timeout = time("DMS_REQUEST_TIMEOUT")?;
        if request_timeout.seconds()?.is_zero() {
            return Err(SettingError(format!(
                "{} is 0: no request could be done",
                request_timeout.name
            )));
        }
        Ok(Settings {
            db_url: config.get_or("DMS_DB_URL", ledger)?.text,
            lock_dir: absolute("DMS_LOCK_DIR", "/var/lock/trilio-dms")?,
            lock_timeout: time("DMS_LOCK_TIMEOUT")?.seconds()?,
            request_timeout: request_timeout.seconds()?,
            mount_bases: mount_bases(&config.get_or("DMS_MOUNT_BASE", || MOUNT_BASE.to_owned())?)?,
            rabbitmq_url: config.get("DMS_RABBITMQ_URL")?.map(|url| url.text),
            openstack: OpenStack::read(config)?,
            node_id: config.get_or("DMS_NODE_ID", node_name)?.text,
            run_dir: absolute("DMS_RUN_DIR", "/run/dms")?,
            secret_dir: config.get("DMS_SECRET_DIR")?.map(|dir| dir.absolute()).transpose()?,
        })
    }
}

const MOUNT_BASE: &str = "/var/lib/trilio/triliovault-mounts";

fn mount_bases(value: &Value) -> Result<Vec<PathBuf>, SettingError> {
    let bases: Vec<PathBuf> =
        value.text.split(':').filter(|base| !base.is_empty()).map(PathBuf::from).collect();
    for base in &bases {
        let mut parts = base.components();
        let rooted = parts.next() == Some(Component::RootDir);
        let plain = parts.all(|part| matches!(part, Component::Normal(_)));
        if !rooted || !plain || base.parent().is_none() {
            let text = format!("{} {base:?} is not a directory below / without \"..\"", value.name);
            return Err(SettingError(text));
        }
    }
    if bases.is_empty() {
        return Err(SettingError(format!("{} names no directory", value.name)));
    }
    Ok(bases)
}

/// A time that is given in seconds: from 0 to a year, so that it can be added to any clock.
pub fn seconds(seconds: f64) -> Option<Duration> {
    const YEAR: f64 = 365.0 * 86_400.0;
    (0.0..=YEAR).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn read(vars: &[(&'static str, &'static str)]) -> Result<Settings, SettingError> {
        let vars = vars.to_vec();
        Settings::read(&Config::of(move |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        }))
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
