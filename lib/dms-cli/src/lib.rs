//! What a user of any of the tools meets first, the same in all of them: exit codes, messages,
//! logging, command lines and settings.
//!
//! It holds nothing that only one tool needs, and nothing that knows a request.

mod age;
mod args;
mod companion;
mod config;
mod exit;
mod host;
mod logging;
mod openstack;
mod prometheus;
mod settings;
mod table;
mod url;

pub use age::{age, since_1970};
pub use args::{parse, refuse};
pub use companion::companion;
pub use config::{Config, Files, Value};
pub use exit::{Context, Exit, Failure, main, plain};
pub use host::{boot_id, node_name, random_id, read_proc};
pub use logging::{About, JOURNAL_STREAM, about, about_what, journal_stream};
pub use openstack::OpenStack;
pub use prometheus::{Family, Label};
pub use settings::{SettingError, Settings, seconds};
pub use table::{Column, Look, Table, quiet_end};
pub use url::{ESCAPE_PASSWORD, unescape};
