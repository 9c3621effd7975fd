//! A response: one JSON object that says success or error.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Access, Invalid, Plan};

/// The two words of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is so now.
    #[default]
    Success,
    /// It is not, or nobody knows; `error_code` says which.
    Error,
}

/// A short stable word for programs, beside the text for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or not allowed; nothing was touched.
    Validation,
    /// A lock, or another operation on the target, was waited for too long.
    LockTimeout,
    /// The job does not use the target.
    NoActiveMount,
    /// Somebody or something else is in the way.
    Busy,
    /// The plan was overtaken by a later one.
    Stale,
    /// Mounting failed.
    Mount,
    /// Unmounting failed.
    Unmount,
    /// The secret could not be had, or the storage refused it.
    Credentials,
    /// It took too long; the outcome is unknown.
    Timeout,
    /// The ledger could not be read or written.
    Database,
    /// The broker was lost; the outcome is unknown.
    Broker,
    /// Nobody listens on that node.
    NoListener,
    /// A stage failed; the outcome is unknown.
    Internal,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl ErrorCode {
    /// Whether the act may have happened all the same: an unknown outcome is no error.
    pub fn leaves_outcome_unknown(&self) -> bool {
        matches!(self, ErrorCode::Timeout | ErrorCode::Broker | ErrorCode::Internal)
    }

    /// The word on the wire.
    pub fn word(&self) -> &str {
        match self {
            ErrorCode::Validation => "validation",
            ErrorCode::LockTimeout => "lock_timeout",
            ErrorCode::NoActiveMount => "no_active_mount",
            ErrorCode::Busy => "busy",
            ErrorCode::Stale => "stale",
            ErrorCode::Mount => "mount",
            ErrorCode::Unmount => "unmount",
            ErrorCode::Credentials => "credentials",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Database => "database",
            ErrorCode::Broker => "broker",
            ErrorCode::NoListener => "no_listener",
            ErrorCode::Internal => "internal",
            ErrorCode::Other(word) => word,
        }
    }
}

/// What an unmount took. Whatever is behind `umount` may have cost data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnmountMethod {
    /// umount(8): whoever was behind the mount has written all that it had.
    Umount,
    /// `umount -f`: requests that were under way were given up.
    Force,
    /// `umount -l`: it is out of sight; who has files open there may still write.
    Lazy,
    /// A daemon that did not answer was killed: what it had not sent is lost.
    Kill,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

/// One response line. `status`, `error_msg` and `success_msg` are always written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Response {
    /// Success or error.
    pub status: Status,
    /// What went wrong, for people.
    #[serde(default)]
    pub error_msg: Option<String>,
    /// What was done, for people.
    #[serde(default)]
    pub success_msg: Option<String>,
    /// What went wrong, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// Where the target is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// A mount: whether this request mounted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physically_mounted: Option<bool>,
    /// A mount: whether it was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_existing: Option<bool>,
    /// A mount of a pool: how it is imported, which may be more than was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// An unmount: whether the target is no longer mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmounted: Option<bool>,
    /// An unmount: what it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmount_method: Option<UnmountMethod>,
    /// An unmount: how many other jobs still use the target on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_mounts_remaining: Option<u64>,
    /// From the act stage to `commit`; no caller ever sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

impl Response {
    /// "It is so now", in these words.
    pub fn success(text: impl Into<String>) -> Self {
        Response { success_msg: Some(text.into()), ..Response::default() }
    }

    /// "It is not", in these words.
    pub fn error(code: ErrorCode, text: impl Into<String>) -> Self {
        Response {
            status: Status::Error,
            error_msg: Some(text.into()),
            error_code: Some(code),
            ..Response::default()
        }
    }

    /// The answer to a line that is no valid request.
    pub fn invalid(why: &Invalid) -> Self {
        Response::error(ErrorCode::Validation, why.0.clone())
    }

    /// The answer to a line that was longer than a request may be.
    pub fn too_long() -> Self {
        Response::invalid(&Invalid::new("the request is longer than 1 MiB"))
    }

    /// The answer where other jobs use the target: nothing was to be done.
    pub fn released() -> Self {
        let text = "Ledger updated, physical mount retained for other jobs";
        Response { unmounted: Some(false), ..Response::success(text) }
    }

    /// The line, without its newline.
    pub fn to_line(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a response is plain data")
    }

    /// Whether this says error.
    pub fn is_error(&self) -> bool {
        self.status == Status::Error
    }

    /// Reads a response line of an earlier stage. Fields that are not ours are dropped, so that
    /// nothing that a peer put in reaches a caller.
    ///
    /// # Errors
    /// If the line is no JSON object with a `status`, or carries a request.
    pub fn parse(line: &[u8]) -> Result<Self, Invalid> {
        let fields: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|_| Invalid::new("the response is not a JSON object"))?;
        if fields.contains_key("keystone_token") || fields.contains_key("backup_target") {
            return Err(Invalid::new("a request stands where a response was expected"));
        }
        serde_json::from_value(Value::Object(fields))
            .map_err(|_| Invalid::new("the response has no status, or a field of the wrong type"))
    }

    /// Whether `line` is an error response of an earlier stage, to be passed on untouched: it
    /// says so, and it has no field but those of a response. (A request that calls itself an
    /// error is not one; it may carry a token.)
    pub fn is_error_line(line: &[u8]) -> bool {
        const FIELDS: [&str; 12] = [
            "status",
            "error_msg",
            "success_msg",
            "error_code",
            "mount_path",
            "physically_mounted",
            "reused_existing",
            "access",
            "unmounted",
            "unmount_method",
            "active_mounts_remaining",
            "plan",
        ];
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(line) else { return false };
        fields.get("status").is_some_and(|status| status == "error")
            && fields.keys().all(|key| FIELDS.contains(&key.as_str()))
            && serde_json::from_value::<Response>(Value::Object(fields)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unused_message_is_null() {
        let text = serde_json::to_string(&Response::success("done")).expect("plain data");
        assert_eq!(text, r#"{"status":"success","error_msg":null,"success_msg":"done"}"#);
    }

    #[test]
    fn codes_are_the_words_that_word_says() {
        for code in [
            ErrorCode::LockTimeout,
            ErrorCode::NoActiveMount,
            ErrorCode::NoListener,
            ErrorCode::Other("new_word".into()),
        ] {
            let json = serde_json::to_value(&code).expect("plain data");
            assert_eq!(json, code.word());
            assert_eq!(serde_json::from_value::<ErrorCode>(json).expect("a word"), code);
        }
    }

    #[test]
    fn a_response_of_the_original_is_understood() {
        let line = br#"{"status": "error", "error_msg": "Mount failed", "success_msg": null}"#;
        let response = Response::parse(line).expect("a response");
        assert!(response.is_error() && response.error_code.is_none());
    }

    #[test]
    fn a_request_that_calls_itself_an_error_is_no_response() {
        let line = br#"{"status":"error","keystone_token":"t","backup_target":{"id":"x"}}"#;
        assert!(!Response::is_error_line(line));
        assert!(Response::parse(line).is_err());
        assert!(Response::is_error_line(
            br#"{"status":"error","error_msg":"x","success_msg":null}"#
        ));
        assert!(!Response::is_error_line(br#"{"status":"error","error_msg":"x","token":"t"}"#));
        assert!(!Response::is_error_line(br#"{"status":"error","error_msg":{"token":"t"}}"#));
    }
}
