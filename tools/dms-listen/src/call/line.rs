//! A request line, and the answer to it: what needs a node's listener, and what does not.

use std::time::Duration;

use dms_cli::random_id;
use dms_wire::{
    Action, Deadline, Decision, ErrorCode, Invalid, Line, MAX_LINE, Plan, Request, Response,
    TargetId,
};

use crate::amqp::QueueName;

/// A request on its way to a node.
pub(crate) struct Call {
    pub(crate) queue: QueueName,
    /// What is sent.
    pub(crate) body: Vec<u8>,
    /// By which the answer is recognised.
    pub(crate) id: String,
    pub(crate) until: Deadline,
    /// For people: `mount target-123`.
    pub(crate) what: String,
    plan: Option<Plan>,
    action: Option<Action>,
}

/// What becomes of a line.
pub(crate) enum Fate {
    /// A node has to be asked.
    Call(Box<Call>),
    /// An error of an earlier stage: it goes on as it is.
    Pass(Vec<u8>),
    /// It is answered here.
    Answer(Box<Response>),
}

impl Fate {
    pub(crate) fn of(line: Line, timeout: Duration) -> Fate {
        let text = match line {
            Line::TooLong => return Fate::Answer(Box::new(Response::too_long())),
            Line::Text(text) => text,
        };
        let request = match Request::parse(&text) {
            Ok(request) => request,
            Err(_) if Response::is_error_line(&text) => return Fate::Pass(text),
            Err(why) => return Fate::Answer(Box::new(Response::invalid(&why))),
        };
        if let Some(plan) = request.plan.as_ref().filter(|p| p.decision == Decision::Release) {
            // Nothing is to be done there.
            let plan = Some(plan.clone());
            return Fate::Answer(Box::new(Response { plan, ..Response::released() }));
        }
        match Call::new(&request, timeout) {
            Ok(call) => Fate::Call(Box::new(call)),
            Err(answer) => {
                Fate::Answer(Box::new(Response { plan: request.plan.clone(), ..answer }))
            }
        }
    }
}

impl Call {
    fn new(request: &Request, timeout: Duration) -> Result<Call, Response> {
        let host = request.plan.as_ref().map(|plan| &plan.host).or(request.host.as_ref());
        let invalid = |why: &str| Response::invalid(&Invalid::new(why));
        let host = host.ok_or_else(|| invalid("Missing required field: host"))?;
        let end = Deadline::after(timeout);
        // Not the request's own: a second answer to an earlier try must not be taken for this one's.
        let id = random_id().map_err(|why| {
            let text = format!("no id for the request: {why}");
            Response::error(ErrorCode::Internal, dms_cli::plain(&text))
        })?;
        Ok(Call {
            queue: QueueName::of_node(host.as_str()).map_err(|why| invalid(&why))?,
            body: request.line_for_node(),
            id,
            until: request.deadline.map_or(end, |deadline| deadline.min(end)),
            what: what(request.action, &request.target.id),
            plan: request.plan.clone(),
            action: request.action,
        })
    }

    /// What the listener said, as the next stage is to see it. The plan is the one that we have:
    /// listeners without a ledger of ours do not return it.
    pub(crate) fn understand(&self, answer: &[u8]) -> Response {
        if answer.len() > MAX_LINE {
            let text = format!("{} answered with more than a line may hold", self.queue);
            return self.fail(ErrorCode::Internal, &text);
        }
        let response = match Response::parse(answer) {
            Ok(response) => response,
            Err(why) => {
                let text = format!("{} did not answer as it should: {why}", self.queue);
                return self.fail(ErrorCode::Internal, &text);
            }
        };
        // But which boot of the node acted, only the node can say.
        let boot = response.plan.as_ref().and_then(|plan| plan.boot.clone());
        let plan = self.plan.clone().map(|plan| Plan { boot, ..plan });
        let mut response = Response { plan, ..response };
        if response.is_error() && response.error_code.is_none() {
            response.error_code = Some(match self.action {
                Some(Action::Unmount) => ErrorCode::Unmount,
                _ => ErrorCode::Mount,
            });
        }
        if let Some(plan) = self.plan.as_ref().filter(|_| !response.is_error()) {
            // What a success means, where the listener did not say so in as many words.
            match plan.decision {
                Decision::Mount => {
                    response.mount_path.get_or_insert_with(|| plan.path.to_string());
                }
                Decision::Unmount => {
                    response.unmounted.get_or_insert(true);
                }
                Decision::Release => {}
            }
        }
        response
    }

    /// Its deadline has passed, and nothing was sent.
    pub(crate) fn late(&self) -> Response {
        self.fail(ErrorCode::Timeout, "timeout: the deadline passed before the request was sent")
    }

    /// Why there is no answer of the listener's.
    pub(crate) fn fail(&self, code: ErrorCode, text: &str) -> Response {
        Response { plan: self.plan.clone(), ..Response::error(code, dms_cli::plain(text)) }
    }
}

fn what(action: Option<Action>, target: &TargetId) -> String {
    format!("{} {target}", action.map_or("do something with", Action::word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fate(line: &serde_json::Value) -> Fate {
        Fate::of(Line::Text(line.to_string().into_bytes()), Duration::from_secs(300))
    }

    fn call() -> Call {
        let request = json!({"action": "unmount", "host": "n1", "deadline": 1e9, "x": 1,
            "request_id": "r-1", "backup_target": {"id": "t1"}});
        match fate(&request) {
            Fate::Call(call) => *call,
            _ => panic!("it needs the node"),
        }
    }

    #[test]
    fn a_request_goes_to_the_queue_of_its_node_without_our_clock() {
        let call = call();
        assert_eq!((call.queue.as_str(), call.id.len()), ("dms.n1", 36));
        let body: serde_json::Value = serde_json::from_slice(&call.body).expect("JSON");
        assert_eq!((body.get("deadline"), &body["request_id"]), (None, &json!("r-1")));
    }

    #[test]
    fn what_is_no_call_is_answered_here() {
        for line in [json!({"backup_target": {"id": "t1"}}), json!({"host": "n1"}), json!([])] {
            assert!(matches!(fate(&line), Fate::Answer(answer) if answer.is_error()), "{line}");
        }
        let error = json!({"status": "error", "error_msg": "x", "success_msg": null});
        assert!(matches!(fate(&error), Fate::Pass(_)));
    }

    #[test]
    fn an_error_without_a_code_gets_that_of_the_act() {
        let answer = br#"{"status":"error","error_msg":"no","success_msg":null}"#;
        assert_eq!(call().understand(answer).error_code, Some(ErrorCode::Unmount));
        let answer = br#"{"status":"error","error_msg":"no","error_code":"busy"}"#;
        assert_eq!(call().understand(answer).error_code, Some(ErrorCode::Busy));
        assert_eq!(call().understand(b"what?").error_code, Some(ErrorCode::Internal));
    }
}
