//! What a user of any of the tools meets first, the same in all of them: exit codes, messages,
//! logging, command lines and settings.
//!
//! It holds nothing that only one tool needs, and nothing that knows a request.

mod args;
mod exit;
mod host;
mod logging;
mod openstack;
mod settings;
mod table;
mod url;

pub use args::{parse, refuse};
pub use exit::{Context, Exit, Failure, main, plain};
pub use host::{boot_id, node_name, random_id};
pub use openstack::OpenStack;
pub use settings::{SettingError, Settings, seconds};
pub use table::{Table, quiet_end};
pub use url::{ESCAPE_PASSWORD, unescape};
