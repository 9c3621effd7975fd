//! What a log line is about, in the words that an operator searches for.

use serde_json::Value;

use crate::{Plan, Request};

impl Request {
    /// `request ID, job N, target T`, and the id that OpenStack knows the request by, as far as they
    /// are known. `id` is its own, if it has been given one.
    pub fn about(&self, id: Option<&str>) -> String {
        let planned = self.plan.as_ref().map(|plan| plan.operation.as_str());
        let id = planned.or(id).or(self.request_id.as_ref().map(|id| id.as_str()));
        let job = self.job.or(self.plan.as_ref().map(|plan| plan.job));
        let context = self.context().and_then(|context| context.get("request_id"));
        // Somebody else's words: no more of them than an id has.
        let theirs = context.and_then(Value::as_str).filter(|theirs| {
            theirs.len() <= 64 && theirs.bytes().all(|byte| byte.is_ascii_graphic())
        });
        words(id, job, self.target.id.as_str(), theirs)
    }
}

impl Plan {
    /// The same of a plan.
    pub fn about(&self) -> String {
        words(Some(self.operation.as_str()), Some(self.job), self.target.as_str(), None)
    }
}

fn words(id: Option<&str>, job: Option<i32>, target: &str, theirs: Option<&str>) -> String {
    // No job asks for what is settled.
    let job = job.filter(|&job| job != 0).map(|job| format!("job {job}"));
    let parts = [
        id.map(|id| format!("request {id}")),
        job,
        Some(format!("target {target}")),
        theirs.map(str::to_owned),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_names_request_job_and_target() {
        let about = |line: &str, id| {
            Request::parse(line.as_bytes()).map(|request| request.about(id)).expect("a request")
        };
        let line = r#"{"request_id":"r1","job":{"jobid":7},"backup_target":{"id":"t1"},
            "context":{"request_id":"req-5"}}"#;
        assert_eq!(about(line, None), "request r1, job 7, target t1, req-5");
        let line = r#"{"backup_target":{"id":"t1"},"context":{"request_id":"a b\n"}}"#;
        assert_eq!(about(line, Some("x")), "request x, target t1");
    }
}
