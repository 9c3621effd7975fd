//! Where a setting comes from: the environment, a credential of the unit, a configuration file, or
//! nowhere. It notes what it was asked for, so that a tool can show what it goes by.

mod files;
mod ini;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, stdout};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use self::files::ConfigFile;
use crate::settings::{SettingError, seconds};
use crate::url::hide_passwords;
use crate::{Column, Context, Exit, Failure, Look, Table, logging, quiet_end};

pub use self::files::Files;

/// Every setting of every tool: a key that is none of them is a mistake.
const VARIABLES: [&str; 32] = [
    "DMS_AUTH_URL",
    "DMS_BARBICAN_URL",
    "DMS_CA_FILE",
    "DMS_DB_URL",
    "DMS_LOCK_DIR",
    "DMS_LOCK_GROUP",
    "DMS_LOCK_TIMEOUT",
    "DMS_LOG_LEVEL",
    "DMS_MOUNT_ALLOW_OTHER",
    "DMS_MOUNT_BASE",
    "DMS_MOUNT_OWNER",
    "DMS_MOUNT_SCOPE",
    "DMS_MOUNT_UMASK",
    "DMS_NFS_EXEC",
    "DMS_NODE_ID",
    "DMS_ON_BUSY",
    "DMS_ON_HUNG",
    "DMS_OS_INTERFACE",
    "DMS_OS_REGION",
    "DMS_PIPELINE",
    "DMS_RABBITMQ_URL",
    "DMS_REQUEST_TIMEOUT",
    "DMS_ROOTWRAP_BIN",
    "DMS_ROOTWRAP_CONF",
    "DMS_RUN_DIR",
    "DMS_S3_CACHE_DIR",
    "DMS_S3_PROGRAM",
    "DMS_SECRET_DIR",
    "DMS_STATE_DIR",
    "DMS_TLS_INSECURE",
    "DMS_UMOUNT_TIMEOUT",
    "DMS_ZFS_DEVICE_DIRS",
];

/// Other names of the same.
const ALIASES: [(&str, &str); 2] =
    [("DMS_MOUNT_BASE", "DMS_MOUNT_BASE_PATH"), ("DMS_REQUEST_TIMEOUT", "DMS_TIMEOUT")];

/// What is shown of each.
const COLUMNS: [Column; 3] =
    [Column::plain("setting"), Column::plain("value"), Column::plain("from")];

/// A setting's value, and how to name it to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// As it was written.
    pub text: String,
    /// The variable, or the file, line and key.
    pub name: String,
}

impl Value {
    /// The value is no good: `why` goes on after its name and its text.
    pub fn refuse(&self, why: &str) -> SettingError {
        SettingError(format!("{} {:?} {why}", self.name, self.text))
    }

    /// A path that does not depend on where one is.
    ///
    /// # Errors
    /// If it does.
    pub fn absolute(&self) -> Result<PathBuf, SettingError> {
        let path = PathBuf::from(&self.text);
        if path.is_absolute() { Ok(path) } else { Err(self.refuse("is not absolute")) }
    }

    /// 1 or 0.
    ///
    /// # Errors
    /// If it is neither.
    pub fn yes_or_no(&self) -> Result<bool, SettingError> {
        match self.text.as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(self.refuse("is neither 0 nor 1")),
        }
    }

    /// A time in seconds.
    ///
    /// # Errors
    /// If it is none.
    pub fn seconds(&self) -> Result<Duration, SettingError> {
        let time = self.text.parse().ok().and_then(seconds);
        time.ok_or_else(|| self.refuse("is not a number of seconds"))
    }
}

/// What a variable's name leads to.
type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// All places that settings come from.
pub struct Config {
    variable: Variables,
    /// Where systemd has put a unit's credentials.
    credentials: Option<PathBuf>,
    files: Vec<ConfigFile>,
    asked: RefCell<BTreeMap<&'static str, Answer>>,
}

/// What somebody was told of a setting.
struct Answer {
    value: Option<String>,
    origin: String,
}

impl Config {
    /// The environment and the files. From here on, the log is at its level.
    ///
    /// # Errors
    /// A file that cannot be read, is somebody else's, or is malformed.
    pub fn read(files: Files) -> Result<Self, Failure> {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let config = Config {
            files: files.read(path("DMS_CONFIG"), path("HOME"))?,
            credentials: path("CREDENTIALS_DIRECTORY"),
            ..Config::of(|name| std::env::var_os(name))
        };
        config.warn_of_strangers();
        logging::set_level(&config.get_or("DMS_LOG_LEVEL", || "INFO".to_owned())?);
        Ok(config)
    }

    /// These variables, and nothing else.
    pub fn of(variable: impl Fn(&str) -> Option<OsString> + 'static) -> Self {
        Config {
            variable: Box::new(variable),
            credentials: None,
            files: Vec::new(),
            asked: RefCell::default(),
        }
    }

    /// The value of a variable, wherever it stands; an empty one counts as not set, as in every
    /// shell script.
    ///
    /// # Errors
    /// If it cannot be read, or is not UTF-8.
    pub fn get(&self, variable: &'static str) -> Result<Option<Value>, SettingError> {
        let found = self.find(variable)?;
        self.note(variable, found.as_ref().map(|(value, origin)| (value, origin.clone())));
        Ok(found.map(|(value, _)| value))
    }

    /// The same, with a default.
    ///
    /// # Errors
    /// As [`Config::get`].
    pub fn get_or(
        &self,
        variable: &'static str,
        default: impl FnOnce() -> String,
    ) -> Result<Value, SettingError> {
        let (value, origin) = self.find(variable)?.unwrap_or_else(|| {
            (Value { text: default(), name: variable.to_owned() }, "default".to_owned())
        });
        self.note(variable, Some((&value, origin)));
        Ok(value)
    }

    /// What was asked for so far, as a table: value and origin; no passwords.
    ///
    /// # Errors
    /// If stdout does not take it.
    pub fn print(&self) -> Result<Exit, Failure> {
        let mut table = Table::new(&COLUMNS);
        for (variable, answer) in self.asked.borrow().iter() {
            let value = answer.value.as_deref().map(hide_passwords);
            table.add(vec![json!(key(variable)), json!(value), json!(answer.origin)]);
        }
        quiet_end(table.write_text(&mut stdout().lock(), Look::of_stdout(true)))
            .context("unable to write", "stdout")?;
        Ok(Exit::Done)
    }

    fn note(&self, variable: &'static str, found: Option<(&Value, String)>) {
        let answer = match found {
            Some((value, origin)) => Answer { value: Some(value.text.clone()), origin },
            None => Answer { value: None, origin: "-".to_owned() },
        };
        self.asked.borrow_mut().insert(variable, answer);
    }

    /// The value and its origin.
    fn find(&self, variable: &'static str) -> Result<Option<(Value, String)>, SettingError> {
        let names: Vec<&str> = names(variable).collect();
        for name in &names {
            if let Some(text) = (self.variable)(name).filter(|text| !text.is_empty()) {
                let Ok(text) = text.into_string() else {
                    return Err(SettingError(format!("{name} is not UTF-8")));
                };
                let value = Value { text, name: (*name).to_owned() };
                return Ok(Some((value, "environment".to_owned())));
            }
        }
        for name in &names {
            if let Some(value) = self.credential(&key(name))? {
                return Ok(Some((value, "credential".to_owned())));
            }
        }
        for file in &self.files {
            let found = names.iter().find_map(|name| file.value(&key(name)));
            if let Some((value, line)) = found {
                return Ok(Some((value, format!("{}:{line}", file.path.display()))));
            }
        }
        Ok(None)
    }

    fn credential(&self, key: &str) -> Result<Option<Value>, SettingError> {
        let Some(directory) = &self.credentials else { return Ok(None) };
        match fs::read_to_string(directory.join(key)) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => {
                let (text, name) = (text.trim().to_owned(), format!("credential {key}"));
                Ok(Some(Value { text, name }))
            }
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(SettingError(format!("unable to read credential {key}: {why}"))),
        }
    }

    fn warn_of_strangers(&self) {
        let is_known = |wanted: &str| {
            VARIABLES.into_iter().flat_map(names).any(|variable| key(variable) == wanted)
        };
        for file in &self.files {
            for entry in file.entries.iter().filter(|entry| !is_known(&entry.key)) {
                let name = file.path.display();
                log::warn!("{name}:{}: there is no setting {}", entry.line, entry.key);
            }
        }
    }
}

impl ConfigFile {
    /// A key's value, and its line.
    fn value(&self, key: &str) -> Option<(Value, usize)> {
        let has_value = |entry: &&ini::Entry| entry.key == key && !entry.value.is_empty();
        let entry = self.entries.iter().find(has_value)?;
        let name = format!("{}:{}: {key}", self.path.display(), entry.line);
        Some((Value { text: entry.value.clone(), name }, entry.line))
    }
}

/// A variable's names, its own first.
fn names(variable: &str) -> impl Iterator<Item = &str> {
    let others = ALIASES.into_iter().filter(move |(name, _)| *name == variable);
    std::iter::once(variable).chain(others.map(|(_, other)| other))
}

/// What a variable is called in a file.
fn key(variable: &str) -> String {
    variable.trim_start_matches("DMS_").to_lowercase()
}
