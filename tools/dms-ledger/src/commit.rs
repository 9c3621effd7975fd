//! `commit`: record what came of a plan, or say that it could not be recorded. Never "success"
//! without a record.

use dms_wire::{Action, Decision, ErrorCode, Plan, Response};

use crate::bindings;
use crate::journal::{self, Filter};
use crate::store::{Result, Store, transaction};

/// Records the outcome of `plan` in one transaction, and returns the answer for the caller.
pub(crate) fn commit(store: &mut dyn Store, plan: &Plan, outcome: &Response) -> Result<Response> {
    transaction(store, |store, now| {
        let mut answer = Response { plan: None, ..outcome.clone() };
        let (target, host) = (plan.target.as_str(), plan.host.as_str());
        let done = !answer.is_error();
        if plan.decision != Decision::Mount {
            let leaves = (done && plan.action == Action::Unmount).then_some(plan.job);
            let remaining = bindings::count_others(store, leaves, target, host)?;
            answer.active_mounts_remaining = Some(remaining);
            answer.unmounted = answer.unmounted.or(Some(false));
        }
        if !journal::close(store, plan.operation.as_str(), Some(plan.seq), &answer, now)? {
            return Ok(recorded(store, plan)?.map_or(Verdict::Overtaken, Verdict::Recorded));
        }
        if done {
            match plan.action {
                Action::Mount => {
                    // A pool may have been there with more.
                    let access = outcome.access.max(plan.access);
                    bindings::bind(store, &Plan { access, ..plan.clone() }, now)?;
                }
                Action::Unmount => bindings::release(store, plan.job.into(), target, host, now)?,
                // Who uses it was not the question.
                Action::Settle => {}
            }
        }
        if done && plan.decision != Decision::Release {
            journal::settle(store, plan, now)?;
        }
        Ok(Verdict::Recorded(answer))
    })
    .map(|verdict| match verdict {
        Verdict::Recorded(answer) => answer,
        Verdict::Overtaken => overtaken(plan),
    })
}

enum Verdict {
    Recorded(Response),
    Overtaken,
}

/// The answer that the journal has for just this plan already: it is a repeat, or the answer to
/// an earlier COMMIT was lost on its way. A mount counts only while its binding does.
fn recorded(store: &mut dyn Store, plan: &Plan) -> Result<Option<Response>> {
    let by_id = Filter { id: Some(plan.operation.to_string()), ..Filter::default() };
    let seen = journal::find(store, &by_id)?.into_iter().next();
    let seen = seen.filter(|seen| seen.seq == i64::try_from(plan.seq).ok());
    let text = seen.and_then(|seen| seen.response);
    let Some(answer) = text.and_then(|text| Response::parse(text.as_bytes()).ok()) else {
        return Ok(None);
    };
    if plan.action == Action::Mount && !answer.is_error() {
        let (target, host) = (plan.target.as_str(), plan.host.as_str());
        let bound = bindings::of_job(store, plan.job, target, host)?;
        return Ok(bound.map(|_| answer));
    }
    Ok(Some(answer))
}

fn overtaken(plan: &Plan) -> Response {
    let text = format!(
        "operation {} was taken over by a later one before its outcome was recorded",
        plan.operation
    );
    Response::error(ErrorCode::Stale, text)
}
