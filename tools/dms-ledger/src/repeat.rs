//! The same request, once more: a broker redelivers, a caller that heard nothing asks again.

use dms_wire::{Action, ErrorCode, Response};

use crate::bindings;
use crate::journal::{self, Filter, Operation};
use crate::store::{Result, Store};
use crate::wish::Wish;

/// What the journal says of a request's id.
pub(crate) enum Repeat {
    /// No such operation: something else was in the way.
    No,
    /// The first one is not over yet.
    Pending,
    /// It was refused, or failed, and this is the answer.
    Answer(Box<Response>),
    /// It was an unmount that was carried out: `commit` knows the answer.
    Recorded(Box<Operation>),
    /// It was a mount that was carried out: look at it again. What is on record stays, since the
    /// job was told so, whatever comes of the second look.
    LookAgain,
    /// Nobody knows how it went: do it again, in the same row.
    Again(Box<Operation>),
}

/// Looks the wish up by its id.
pub(crate) fn of(store: &mut dyn Store, wish: &Wish<'_>) -> Result<Repeat> {
    let by_id = Filter { id: Some(wish.id.to_string()), ..Filter::default() };
    let Some(seen) = journal::find(store, &by_id)?.into_iter().next() else {
        return Ok(Repeat::No);
    };
    let same = seen.job == i64::from(wish.job)
        && seen.target == wish.target.as_str()
        && seen.host == wish.host.as_str()
        && seen.action == wish.action.word();
    if !same {
        let text = format!("request_id {} belongs to another request", wish.id);
        return Ok(answer(Response::error(ErrorCode::Validation, text)));
    }
    if seen.status == "pending" {
        return Ok(Repeat::Pending);
    }
    if wish.action == Action::Settle {
        return Ok(Repeat::Again(Box::new(seen)));
    }
    if seen.is_unknown() {
        return again_unless_gone_on(store, wish, seen);
    }
    if seen.status == "success" && wish.action == Action::Mount {
        return look_again_if_bound(store, wish);
    }
    if seen.status == "success" {
        return Ok(Repeat::Recorded(Box::new(seen)));
    }
    let recorded = seen.response.as_deref().map(|text| Response::parse(text.as_bytes()));
    match recorded {
        // Nobody was there to do it, somebody was in the way, or the database failed before it was
        // planned; it may be otherwise now.
        Some(Ok(Response {
            error_code: Some(ErrorCode::NoListener | ErrorCode::LockTimeout | ErrorCode::Database),
            ..
        })) => again_unless_gone_on(store, wish, seen),
        Some(Ok(response)) => Ok(answer(response)),
        _ => Ok(Repeat::Again(Box::new(seen))),
    }
}

/// Nobody knows how it went, so it is done again; but not if the job has since gone on, and got
/// something else done: a late unmount must not unmount under it.
fn again_unless_gone_on(store: &mut dyn Store, wish: &Wish<'_>, seen: Operation) -> Result<Repeat> {
    let done_by_job = Filter {
        job: Some(wish.job),
        target: Some(wish.target.to_string()),
        host: Some(wish.host.to_string()),
        status: Some("success".to_owned()),
        limit: Some(1),
        ..Filter::default()
    };
    let last = journal::find(store, &done_by_job)?.into_iter().next();
    // One that was done again keeps the time at which it came first: the fence tells, too.
    let (target, host) = (wish.target.as_str(), wish.host.as_str());
    let fence = journal::last_fence_done(store, wish.job, target, host)?;
    let is_late = last.is_some_and(|last| last.created > seen.created)
        || (seen.seq.is_some() && fence > seen.seq);
    if is_late {
        let text = format!("request {} is late: job {} has gone on since", wish.id, wish.job);
        return Ok(answer(Response::error(ErrorCode::Stale, text)));
    }
    Ok(Repeat::Again(Box::new(seen)))
}

/// A mount is answered "yes" again only while the job still uses the target, and only after
/// another look at the kernel.
fn look_again_if_bound(store: &mut dyn Store, wish: &Wish<'_>) -> Result<Repeat> {
    let (target, host) = (wish.target.as_str(), wish.host.as_str());
    if bindings::of_job(store, wish.job, target, host)?.is_some() {
        return Ok(Repeat::LookAgain);
    }
    let text = format!("request {} was carried out, and job {} has left since", wish.id, wish.job);
    Ok(answer(Response::error(ErrorCode::Stale, text)))
}

fn answer(response: Response) -> Repeat {
    Repeat::Answer(Box::new(response))
}
