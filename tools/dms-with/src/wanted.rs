//! What is to be mounted: a request, as it came, and the lines that are made of it.

use dms_wire::{Action, Deadline, Host, Invalid, Owner, Request, TargetId};
use serde_json::{Map, Value};

/// A request to mount, checked.
#[derive(Debug)]
pub(crate) struct Wanted {
    fields: Map<String, Value>,
    pub(crate) job: i32,
    pub(crate) target: TargetId,
    pub(crate) host: Host,
    /// The request's own id.
    pub(crate) id: Option<String>,
    /// Until when its maker waits for the mount.
    deadline: Option<Deadline>,
    /// Where it wants to be mounted.
    pub(crate) path: Option<String>,
}

impl Wanted {
    /// Checks all that a mount needs, so that nothing is mounted for a request behind which there
    /// is one that is no good. `token`: for a request without one.
    pub(crate) fn read(line: &[u8], token: Option<&str>) -> Result<Wanted, Invalid> {
        let mut fields = match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => fields,
            _ => return Err(Invalid::new("it is not a JSON object")),
        };
        let missing = |field: &str| Invalid::new(format!("Missing required field: {field}"));
        if fields.get("plan").is_some_and(|plan| !plan.is_null()) {
            return Err(Invalid::new("it has a plan already"));
        }
        fields.insert("action".into(), Action::Mount.word().into());
        let has_token = fields.get("keystone_token").is_some_and(|token| !token.is_null());
        if let Some(token) = token.filter(|_| !has_token) {
            fields.insert("keystone_token".into(), token.into());
        }
        let line = serde_json::to_vec(&fields).expect("it was read as JSON");
        let request = Request::parse(&line)?;
        request.target.check_mountable()?;
        Ok(Wanted {
            job: request.job.ok_or_else(|| missing("jobid"))?,
            host: request.host.ok_or_else(|| missing("host"))?,
            id: request.request_id.map(|id| id.to_string()),
            deadline: request.deadline,
            path: request.target.path.map(|path| path.as_str().to_owned()),
            target: request.target.id,
            fields,
        })
    }

    /// Whether the two are one use of one target for a ledger.
    pub(crate) fn is_as(&self, other: &Wanted) -> bool {
        (self.job, &self.target, &self.host) == (other.job, &other.target, &other.host)
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        format!("target {} for job {} on {}", self.target, self.job, self.host)
    }

    /// The line that asks for the mount.
    pub(crate) fn mount_line(&self, id: &str, owner: &Owner, deadline: Deadline) -> Vec<u8> {
        let deadline = self.deadline.map_or(deadline, |own| own.min(deadline));
        self.line(Action::Mount, id, deadline, owner)
    }

    /// The line that asks for the unmount. That needs no token, and the one of the mount may have
    /// expired long ago.
    pub(crate) fn unmount_line(&self, id: &str, owner: &Owner, deadline: Deadline) -> Vec<u8> {
        self.line(Action::Unmount, id, deadline, owner)
    }

    fn line(&self, action: Action, id: &str, until: Deadline, owner: &Owner) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.insert("action".into(), action.word().into());
        fields.insert("request_id".into(), id.into());
        fields.insert("deadline".into(), until.seconds().into());
        let owner = serde_json::to_value(owner).expect("strings are plain data");
        fields.insert("owner".into(), owner);
        if action == Action::Unmount {
            fields.remove("keystone_token");
        }
        serde_json::to_vec(&fields).expect("it was read as JSON")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use serde_json::json;

    fn request() -> Value {
        json!({"job": {"jobid": 7}, "host": "n", "keystone_token": "tok", "deadline": 1.0,
            "action": "unmount", "owner": "somebody", "request_id": "r",
            "backup_target": {"id": "t", "type": "s3", "secret_ref": "file:///s"}})
    }

    #[test]
    fn the_unmount_has_no_token_the_same_owner_and_a_time_of_its_own() {
        let wanted = Wanted::read(request().to_string().as_bytes(), Some("other")).expect("valid");
        let owner = Owner { host: "h".into(), boot: "b".into(), life: "/l".into() };
        let until = Deadline::after(Duration::from_secs(60));
        let read = |line: Vec<u8>| serde_json::from_slice::<Value>(&line).expect("it is JSON");
        let mount = read(wanted.mount_line("r", &owner, until));
        let unmount = read(wanted.unmount_line("u", &owner, until));
        assert_eq!((&mount["keystone_token"], &mount["action"]), (&json!("tok"), &json!("mount")));
        assert_eq!((&mount["deadline"], &mount["owner"]["host"]), (&json!(1.0), &json!("h")));
        assert_eq!((&unmount["action"], &unmount["request_id"]), (&json!("unmount"), &json!("u")));
        assert!(unmount["deadline"].as_f64().is_some_and(|until| until > 1.0));
        assert!(unmount.get("keystone_token").is_none());
        assert_eq!(unmount["owner"], mount["owner"]);
    }

    #[test]
    fn what_a_mount_needs_is_asked_for_before_anything_is_mounted() {
        for field in ["job", "host", "backup_target"] {
            let mut request = request();
            request.as_object_mut().expect("it is one").remove(field);
            assert!(Wanted::read(request.to_string().as_bytes(), None).is_err(), "{field}");
        }
        assert!(Wanted::read(b"[]", None).is_err());
    }
}
