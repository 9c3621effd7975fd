//! The lines that the tools exchange.
//!
//! One JSON object on one line is a request or a response; `dms-ledger plan` adds a plan to a
//! request, the act stage hands it on in its response. This library reads and writes those lines
//! and checks their shape. It touches no file, no database and no mount, and it decides nothing.

mod about;
mod access;
mod deadline;
mod fields;
mod ids;
mod line;
mod owner;
mod plan;
mod request;
mod response;
mod secret;
mod target;
mod wait;

pub use access::Access;
pub use deadline::Deadline;
pub use ids::{Host, MAX_PATH, MountPath, OperationId, TargetId, TargetType};
pub use line::{Line, Lines, MAX_LINE, MAX_REQUEST, read_line, write_json, write_line};
pub use owner::Owner;
pub use plan::{Decision, Plan};
pub use request::{Action, Request};
pub use response::{ErrorCode, Response, Status, UnmountMethod};
pub use secret::Secret;
pub use target::Target;
pub use wait::LockTimeout;

/// Why a line is not a valid request (or response, or plan): one lower-case sentence that names
/// the field. It never quotes the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl Invalid {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Invalid(text.into())
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}
