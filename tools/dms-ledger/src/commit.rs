//! `commit`: record what came of a plan, or say that it could not be recorded. Never "success"
//! without a record.

use dms_wire::{Action, Decision, ErrorCode, Plan, Response};

use crate::bindings;
use crate::journal::{self, Filter};
use crate::store::{Result, Statement, Store, StoreError, transaction, transaction_seen};

/// Records the outcome of `plan` in one transaction, and returns the answer for the caller.
pub(crate) fn commit(store: &mut dyn Store, plan: &Plan, outcome: &Response) -> Result<Response> {
    let is_closed = |store: &mut dyn Store| {
        Ok(journal::is_open(store, plan.operation.as_str(), plan.seq)? != Some(true))
    };
    let record = |store: &mut dyn Store| record(store, plan, outcome);
    match transaction_seen(store, record, |store, _| is_closed(store)) {
        Err(StoreError::Overtaken) => {
            let recorded = transaction(store, |store| recorded(store, plan))?;
            Ok(recorded.unwrap_or_else(|| overtaken(plan)))
        }
        answer => answer,
    }
}

/// Part of the caller's transaction; [`StoreError::Overtaken`] if the operation is not pending any more.
fn record(store: &mut dyn Store, plan: &Plan, outcome: &Response) -> Result<Response> {
    let mut answer = Response { plan: None, ..outcome.clone() };
    let (target, host) = (plan.target.as_str(), plan.host.as_str());
    let done = !answer.is_error();
    if plan.decision != Decision::Mount {
        let leaves = (done && plan.action == Action::Unmount).then_some(plan.job);
        // Since the plan, nobody has come or gone by a request.
        let counted = plan.others.filter(|_| leaves.is_some());
        let remaining = match counted {
            Some(others) => others,
            None => bindings::count_others(store, leaves, target, host)?,
        };
        answer.active_mounts_remaining = Some(remaining);
        answer.unmounted = answer.unmounted.or(Some(false));
    }
    // A pool may have been there with more.
    let bound = Plan { access: outcome.access.max(plan.access), ..plan.clone() };
    let closing = journal::closing(plan.operation.as_str(), plan.seq, &answer);
    let binding = match plan.action {
        Action::Mount => Some(bindings::binding(&bound)),
        Action::Unmount => Some(bindings::releasing(plan.job.into(), target, host)),
        // Who uses it was not the question.
        Action::Settle => None,
    };
    let settling = (plan.decision != Decision::Release).then(|| journal::settling(plan));
    let statements: Vec<Statement> = std::iter::once(closing)
        .chain(binding.into_iter().chain(settling).filter(|_| done))
        .collect();
    let answers = store.run_all(&statements)?;
    let changes = |at: usize| answers.get(at).is_some_and(|answer| answer.changed > 0);
    if !changes(0) {
        return Err(StoreError::Overtaken);
    }
    if done && plan.action == Action::Mount && !changes(1) {
        bindings::insert(store, &bound)?;
    }
    Ok(answer)
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
