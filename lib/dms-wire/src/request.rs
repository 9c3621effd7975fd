//! A request: its shape is checked here, once; what a stage requires of it, that stage asks for.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::{name, object, optional, quote, string};
use crate::line::{MAX_LINE, MAX_REQUEST};
use crate::wait;
use crate::{Deadline, Host, Invalid, OperationId, Owner, Plan, Secret, Target, TargetId};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The job wants to use the target.
    Mount,
    /// The job is done with it.
    Unmount,
    /// No job asks: the target is to be as the ledger has it, mounted if it is used, else not. Only
    /// with a plan: what that means is for the ledger to say.
    Settle,
}

impl Action {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Action::Mount => "mount",
            Action::Unmount => "unmount",
            Action::Settle => "settle",
        }
    }
}

/// One request line, its shape checked: whatever is there has the right type. The line itself is
/// kept, so that fields we do not know go on to the next stage.
#[derive(Clone)]
pub struct Request {
    fields: Map<String, Value>,
    /// What is asked; absent where the tool that is called says it.
    pub action: Option<Action>,
    /// The job, from `job.jobid` or `jobid`.
    pub job: Option<i32>,
    /// The node.
    pub host: Option<Host>,
    /// The target.
    pub target: Target,
    /// For the key manager.
    pub token: Option<Secret>,
    /// The id that makes a repeat recognisable.
    pub request_id: Option<OperationId>,
    /// When the caller will have given up.
    pub deadline: Option<Deadline>,
    /// How long its locks were waited for.
    pub lock_wait: Duration,
    /// Who keeps the job's use of the target, if it can be seen when nobody does.
    pub owner: Option<Owner>,
    /// What the ledger decided, from the second stage on.
    pub plan: Option<Plan>,
}

impl Request {
    /// Who asks, as OpenStack sees it; whatever is in there has not been looked at.
    pub(crate) fn context(&self) -> Option<&Map<String, Value>> {
        self.fields.get("context").and_then(Value::as_object)
    }

    /// Reads one line.
    ///
    /// # Errors
    /// Names the first field that is missing or of the wrong type; the text never quotes a value
    /// that could be secret.
    pub fn parse(line: &[u8]) -> Result<Self, Invalid> {
        let fields = object(line)?;
        let plan = match fields.get("plan") {
            None | Some(Value::Null) => None,
            // serde's own message would quote the value.
            Some(plan) => {
                Some(Plan::deserialize(plan).map_err(|_| Invalid::new("plan is no plan"))?)
            }
        };
        if plan.is_none() && line.len() > MAX_REQUEST {
            return Err(Invalid::new("the request is longer than 1 MiB"));
        }
        for name in ["context", "job"] {
            optional(&fields, "", name, Value::as_object, "an object")?;
        }
        let deadline = optional(&fields, "", "deadline", Value::as_f64, "a number")?
            .map(|s| Deadline::from_seconds(s).ok_or_else(|| Invalid::new("deadline is no moment")))
            .transpose()?;
        let lock_wait = optional(&fields, "", wait::FIELD, Value::as_u64, "a whole number")?;
        Ok(Request {
            action: action(&fields)?,
            job: job(&fields)?,
            host: name(&fields, "", "host")?,
            target: Target::read(&fields)?,
            token: string(&fields, "", "keystone_token")?.map(Secret::new),
            request_id: name(&fields, "", "request_id")?,
            deadline,
            lock_wait: Duration::from_millis(lock_wait.unwrap_or_default()),
            owner: Owner::read(&fields),
            plan,
            fields,
        })
    }

    /// The target of a line that is otherwise not looked at.
    ///
    /// # Errors
    /// If the line is no JSON object, says that it is a response, or names no valid target.
    pub fn peek(line: &[u8]) -> Result<(TargetId, Option<Deadline>), Invalid> {
        let fields = object(line)?;
        let deadline = fields.get("deadline").and_then(Value::as_f64);
        Ok((Target::read(&fields)?.id, deadline.and_then(Deadline::from_seconds)))
    }

    /// The line with the time that its locks were waited for, for whoever keeps a ledger.
    pub fn with_lock_wait(line: &[u8], waited: Duration) -> Cow<'_, [u8]> {
        wait::with_lock_wait(line, waited)
    }

    /// The line for the next stage: as it came, with the plan, and with the path and type that
    /// the ledger knows where the request left them out.
    pub fn with_plan(&self, plan: &Plan) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        fields.remove(wait::FIELD);
        if let Some(Value::Object(target)) = fields.get_mut("backup_target") {
            let path = Value::from(plan.path.as_str());
            target.insert("filesystem_export_mount_path".into(), path);
            if let Some(kind) = plan.kind {
                target.insert("type".into(), kind.word().into());
            }
        }
        fields.insert("host".into(), plan.host.as_str().into());
        fields.insert("action".into(), plan.asked().word().into());
        let plan = serde_json::to_value(plan).expect("a plan is plain data");
        fields.insert("plan".into(), plan);
        fields
    }

    /// The line for another host: without the deadline, which is a moment of this host's clock.
    pub fn line_for_node(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.remove("deadline");
        serde_json::to_vec(&fields).expect("it was read as JSON")
    }

    /// Whether there is room for a plan in the line that we would write: it may be longer than
    /// the one that came (`1e15` is written out).
    pub fn has_room_for_plan(&self) -> bool {
        /// More than any plan is long, in bytes.
        const PLAN: usize = 16 << 10;
        serde_json::to_vec(&self.fields).is_ok_and(|line| line.len() <= MAX_LINE - PLAN)
    }

    /// What the journal keeps of the request: what identifies it, by name; never a token, never
    /// a field we do not know.
    pub fn journal_data(&self) -> Value {
        const CONTEXT: [&str; 4] = ["user_id", "tenant_id", "project_id", "request_id"];
        const JOB: [&str; 6] =
            ["jobid", "progress", "status", "completed_at", "action", "parent_jobid"];
        const TARGET: [&str; 9] = [
            "id",
            "type",
            "deleted",
            "status",
            "filesystem_export",
            "filesystem_export_mount_path",
            "secret_ref",
            "nfs_mount_opts",
            "zfs_import_opts",
        ];
        let mut kept = Map::new();
        for (name, allowed) in
            [("context", &CONTEXT[..]), ("job", &JOB[..]), ("backup_target", &TARGET[..])]
        {
            if let Some(Value::Object(fields)) = self.fields.get(name) {
                let part = fields
                    .iter()
                    .filter(|(key, value)| allowed.contains(&key.as_str()) && is_plain(value))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                kept.insert(name.into(), Value::Object(part));
            }
        }
        for name in ["jobid", "host", "action", "request_id"] {
            if let Some(value) = self.fields.get(name).filter(|value| is_plain(value)) {
                kept.insert(name.into(), value.clone());
            }
        }
        Value::Object(kept)
    }
}

/// Short and without parts: fit for the journal.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) | Value::Array(_) => false,
        Value::String(text) => text.len() <= 1024,
        _ => true,
    }
}

fn action(fields: &Map<String, Value>) -> Result<Option<Action>, Invalid> {
    match string(fields, "", "action")?.as_deref() {
        None => Ok(None),
        Some("mount") => Ok(Some(Action::Mount)),
        Some("unmount") => Ok(Some(Action::Unmount)),
        Some("settle") => Ok(Some(Action::Settle)),
        Some(other) => Err(Invalid(format!("Unknown action: {}", quote(other)))),
    }
}

fn job(fields: &Map<String, Value>) -> Result<Option<i32>, Invalid> {
    let nested = match fields.get("job") {
        Some(Value::Object(job)) => job_id(job)?,
        _ => None,
    };
    match (job_id(fields)?, nested) {
        (Some(top), Some(nested)) if top != nested => {
            Err(Invalid(format!("jobid is {top}, but job.jobid is {nested}")))
        }
        (top, nested) => Ok(top.or(nested)),
    }
}

fn job_id(fields: &Map<String, Value>) -> Result<Option<i32>, Invalid> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = |value: &Value| match value {
        Value::Number(number) => number.as_i64().and_then(|n| i32::try_from(n).ok()),
        Value::String(text) if digits(text) => text.parse().ok(),
        _ => None,
    };
    match fields.get("jobid") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            read(value).map(Some).ok_or_else(|| Invalid::new("jobid must be an integer (32 bits)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetType;
    use serde_json::json;

    fn parse(value: &Value) -> Result<Request, String> {
        Request::parse(value.to_string().as_bytes()).map_err(|why| why.0)
    }

    fn full() -> Value {
        json!({
            "context": {"user_id": "u", "secret": "s"}, "keystone_token": "tok",
            "job": {"jobid": 7, "job_details": [{"id": "d"}]}, "host": "n1", "action": "mount",
            "backup_target": {"id": "t1", "type": "s3", "secret_ref": "file:///s",
                "filesystem_export": null, "filesystem_export_mount_path": "/m/t1",
                "status": "available", "deleted": false},
            "unknown": 1,
        })
    }

    #[test]
    fn the_documented_shape_is_read() {
        let request = parse(&full()).expect("a valid request");
        assert_eq!(request.job, Some(7));
        assert_eq!(request.target.check_mountable(), Ok((TargetType::S3, "file:///s")));
    }

    #[test]
    fn the_job_id_may_stand_in_either_place_and_be_digits() {
        for (top, nested, want) in [
            (json!(7), json!(7), Some(7)),
            (json!("12"), Value::Null, Some(12)),
            (Value::Null, json!(5), Some(5)),
        ] {
            let mut value = full();
            value["jobid"] = top;
            value["job"]["jobid"] = nested;
            assert_eq!(parse(&value).expect("a valid request").job, want);
        }
    }

    #[test]
    fn a_malformed_field_is_named() {
        for (pointer, bad, word) in [
            ("/jobid", json!(8), "jobid is 8"),
            ("/jobid", json!(1_u64 << 31), "jobid"),
            ("/jobid", json!(1.5), "jobid"),
            ("/jobid", json!("job-789"), "jobid must be an integer"),
            ("/jobid", json!(true), "jobid"),
            ("/context", json!("x"), "context"),
            ("/job", json!([]), "job"),
            ("/host", json!(1), "host"),
            ("/host", json!("a/b"), "host"),
            ("/action", json!("remount"), "Unknown action: remount"),
            ("/action", json!(1), "action"),
            ("/keystone_token", json!(1), "keystone_token"),
            ("/deadline", json!("soon"), "deadline"),
            ("/backup_target", json!("t"), "backup_target"),
            ("/backup_target", Value::Null, "backup_target"),
            ("/backup_target/id", Value::Null, "backup_target.id"),
            ("/backup_target/id", json!("a/b"), "backup_target.id"),
            ("/backup_target/type", json!("cifs"), "Unsupported target type: cifs"),
            ("/backup_target/deleted", json!("yes"), "backup_target.deleted"),
            ("/backup_target/filesystem_export_mount_path", json!("/a/../b"), "mount_path"),
            ("/backup_target/secret_ref", json!(5), "backup_target.secret_ref"),
            ("/plan", json!({"seq": -1}), "plan"),
        ] {
            let mut value = full();
            if value.pointer(pointer).is_none() {
                value[&pointer[1..]] = Value::Null;
            }
            *value.pointer_mut(pointer).expect("just made") = bad;
            let why = parse(&value).err().unwrap_or_default();
            assert!(why.contains(word), "{pointer}: {why:?}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for line in ["", "null", "[1]", "{", "\"x\"", "{} {}", "{\"status\":\"error\"}"] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line:?} was accepted");
        }
        assert!(Request::parse(b"\xff").is_err());
    }

    #[test]
    fn a_mount_needs_a_source_and_a_target_in_use() {
        for (field, value) in [
            ("secret_ref", Value::Null),
            ("secret_ref", json!("")),
            ("type", Value::Null),
            ("deleted", json!(true)),
            ("status", json!("unavailable")),
        ] {
            let mut request = full();
            request["backup_target"][field] = value;
            let request = parse(&request).expect("the shape is valid");
            assert!(request.target.check_mountable().is_err(), "{field}");
        }
    }

    #[test]
    fn the_journal_keeps_no_token_and_no_unknown_field() {
        let kept = parse(&full()).expect("a valid request").journal_data().to_string();
        assert!(kept.contains("\"user_id\":\"u\"") && kept.contains("file:///s"));
        for secret in ["tok", "\"s\"", "unknown", "job_details"] {
            assert!(!kept.contains(secret), "{secret} in {kept}");
        }
    }
}
