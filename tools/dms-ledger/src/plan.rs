//! `plan`: decide what a request needs done, and reserve the target until it is recorded.
//!
//! First the pending row, in a transaction of its own; then, alone on the target, read the ledger and
//! decide, with a fence. So any number of controllers may plan at once, on any SQL engine.

use std::time::{Duration, Instant};

use dms_wire::{Action, Deadline, Decision, ErrorCode, Plan, Response};

use crate::decide::{Source, decide};
use crate::journal::{self, Opening, Operation};
use crate::owner::Owner;
use crate::pools;
use crate::repeat::{self, Repeat};
use crate::store::{Result, Store, StoreError, pause, transaction};
use crate::takeover::settle_ended;
use crate::wish::Wish;

/// What planning needs beside the request and the database.
pub(crate) struct Planner {
    /// The ledger's id.
    pub(crate) ledger: String,
    pub(crate) owner: Owner,
    pub(crate) mount_base: String,
    /// How long one request may take, all in all.
    pub(crate) bound: Duration,
    /// Whether the operations of runs that have ended were settled just now.
    pub(crate) is_settled: bool,
}

/// The result: a plan, or the answer to give at once.
pub(crate) enum Planned {
    Plan(Plan),
    Answer(Response),
}

impl Planner {
    /// Plans one request. Waits while another operation is pending, no longer than the request's
    /// deadline and the bound allow.
    pub(crate) fn plan(&self, store: &mut dyn Store, wish: &Wish<'_>) -> Result<Planned> {
        let end = Deadline::after(self.bound);
        let end = wish.request.deadline.map_or(end, |deadline| deadline.min(end));
        if end.passed() {
            return Ok(refuse(ErrorCode::Timeout, "timeout: the request's deadline has passed"));
        }
        match self.reserve(store, wish, end)? {
            Reserved::Ours(seen) => self.decide_or_close(store, wish, seen.as_ref()),
            Reserved::LookAgain => self.decide_or_close(store, &wish.anew(), None),
            Reserved::Answered(answer) => Ok(Planned::Answer(answer)),
            Reserved::Recorded(seen) => Ok(Planned::Plan(self.recorded(wish, &seen))),
        }
    }

    /// Decides; if that fails, nothing has been acted on, and the target is free again. `seen`: the
    /// operation as it was before it was done again.
    fn decide_or_close(
        &self,
        store: &mut dyn Store,
        wish: &Wish<'_>,
        seen: Option<&Operation>,
    ) -> Result<Planned> {
        let planned = transaction(store, |store, now| decide(store, wish, seen, &self.owner, now));
        if let Err(why) = &planned {
            let answer = match why {
                StoreError::Foreign(why) => unknown_key(wish, why),
                _ => Response::error(ErrorCode::Database, format!("not planned: {why}")),
            };
            let closed = transaction(store, |store, now| {
                journal::close(store, wish.id.as_str(), None, &answer, now)
            });
            if let Err(why) = closed {
                log::warn!("operation {} stays pending: {why}", wish.id);
            }
            if let StoreError::Foreign(_) = why {
                return Ok(Planned::Answer(answer));
            }
        }
        Ok(match planned? {
            Ok((seq, decision, known)) => Planned::Plan(self.planned(wish, seq, decision, known)),
            Err(answer) => Planned::Answer(*answer),
        })
    }

    /// An unmount that was carried out before: nothing to do, and `commit` finds the answer.
    fn recorded(&self, wish: &Wish<'_>, seen: &Operation) -> Plan {
        let seq = seen.seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or_default();
        let known = Source::recorded(&seen.path, &seen.kind, &seen.source, wish);
        self.planned(wish, seq, Decision::Release, known)
    }

    fn planned(&self, wish: &Wish<'_>, seq: u64, decision: Decision, known: Source) -> Plan {
        Plan {
            operation: wish.id.clone(),
            ledger: self.ledger.clone(),
            seq,
            job: wish.job,
            target: wish.target.clone(),
            host: wish.host.clone(),
            path: known.path,
            kind: known.kind,
            source: known.source,
            access: known.access,
            action: wish.action,
            decision,
            boot: None,
            owner: wish.request.owner.clone().filter(|_| wish.action == Action::Mount),
        }
    }

    /// Notes a request that got no locks: nothing was done. False: it is on record already.
    pub(crate) fn note_unlocked(
        &self,
        store: &mut dyn Store,
        wish: &Wish<'_>,
        answer: &Response,
        waited: Duration,
    ) -> Result<bool> {
        let opening = Opening { waited: millis(waited), ..self.opening(wish, Duration::ZERO) };
        match journal::give_up(store, &opening, answer) {
            Ok(()) => Ok(true),
            Err(StoreError::Duplicate) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// The operation that the wish is about to become.
    fn opening<'a>(&'a self, wish: &'a Wish<'_>, lease: Duration) -> Opening<'a> {
        Opening {
            id: wish.id.as_str(),
            target: wish.target.as_str(),
            job: wish.job,
            host: wish.host.as_str(),
            action: wish.action,
            path: (wish.action == Action::Mount).then_some(wish.path.as_str()),
            kind: wish.request.target.kind,
            source: wish.request.target.source(),
            // What is there to be exported, the bindings say.
            access: wish.request.target.access().filter(|_| wish.action != Action::Unmount),
            request: wish.request,
            owner: &self.owner,
            lease: millis(lease),
            waited: millis(wish.request.lock_wait),
        }
    }

    /// Makes the wish the one pending operation of its target, unless it is a repeat that needs
    /// no operation any more.
    fn reserve(&self, store: &mut dyn Store, wish: &Wish<'_>, end: Deadline) -> Result<Reserved> {
        // The act is bounded by what is left; twice that, and a minute for the stages around it.
        let lease = end.left() * 2 + Duration::from_secs(60);
        let mut opening = self.opening(wish, lease);
        let waited = opening.waited;
        let begun = Instant::now();
        let mut wait = Duration::from_millis(2);
        let mut is_settled = self.is_settled;
        loop {
            if !is_settled {
                settle_ended(store, &self.owner)?;
            }
            opening.waited = waited.saturating_add(millis(begun.elapsed()));
            match journal::open(store, &opening) {
                // What is in the way may have ended.
                Err(StoreError::Duplicate) if is_settled => {
                    is_settled = false;
                    continue;
                }
                Err(StoreError::Duplicate) => {}
                Err(why) => return Err(why),
                Ok(()) => return Ok(Reserved::Ours(None)),
            }
            match repeat::of(store, wish)? {
                Repeat::Answer(response) => return Ok(Reserved::Answered(*response)),
                Repeat::Recorded(seen) => return Ok(Reserved::Recorded(*seen)),
                Repeat::Again(seen) => match journal::reopen(store, &seen, &opening) {
                    Ok(true) => return Ok(Reserved::Ours(Some(*seen))),
                    Ok(false) | Err(StoreError::Duplicate) => {}
                    Err(why) => return Err(why),
                },
                Repeat::LookAgain => {
                    let id = wish.anew().id;
                    match journal::open(store, &Opening { id: id.as_str(), ..opening }) {
                        Ok(()) => return Ok(Reserved::LookAgain),
                        Err(StoreError::Duplicate) => {}
                        Err(why) => return Err(why),
                    }
                }
                Repeat::No | Repeat::Pending => {}
            }
            if end.passed() {
                return Ok(Reserved::Answered(give_up(store, wish, &opening)?));
            }
            pause(wait.min(end.left()));
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }
}

/// Ends the operation of a plan that nobody has taken: nothing was acted on.
pub(crate) fn withdraw(store: &mut dyn Store, plan: &Plan) {
    let answer = Response::error(ErrorCode::Internal, "nobody took the plan");
    let closed = transaction(store, |store, now| {
        journal::close(store, plan.operation.as_str(), Some(plan.seq), &answer, now)
    });
    if let Err(why) = closed {
        log::warn!("operation {} stays pending: {why}", plan.operation);
    }
}

/// What came of the wish for an operation of one's own.
enum Reserved {
    /// It is pending, and it is ours; what it was before, if it is done again.
    Ours(Option<Operation>),
    /// An operation to look at a mount again is pending, and ours.
    LookAgain,
    /// There is nothing to do but to say this.
    Answered(Response),
    /// It was carried out long ago.
    Recorded(Operation),
}

/// Somebody else's operation is in the way for too long; the journal says so too.
fn give_up(store: &mut dyn Store, wish: &Wish<'_>, opening: &Opening<'_>) -> Result<Response> {
    let answer = still_pending(store, wish)?;
    match journal::give_up(store, opening, &answer) {
        // It is this very request that is pending.
        Ok(()) | Err(StoreError::Duplicate) => Ok(answer),
        Err(why) => Err(why),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

fn still_pending(store: &mut dyn Store, wish: &Wish<'_>) -> Result<Response> {
    let other = journal::find(
        store,
        &journal::Filter {
            target: Some(wish.target.to_string()),
            host: Some(wish.host.to_string()),
            pending_only: true,
            ..journal::Filter::default()
        },
    )?;
    let by = match (other.first(), pools::writer(store, wish)?) {
        (Some(other), _) => format!("operation {} of job {} is pending", other.id, other.job),
        (None, Some(other)) => format!(
            "operation {} of job {} on pool {} is pending on {}",
            other.id,
            other.job,
            other.source.unwrap_or_default(),
            other.host
        ),
        (None, None) => format!("a mount at {} is pending", wish.path),
    };
    let text = format!("timeout: gave up waiting for {} on {}: {by}", wish.target, wish.host);
    Ok(Response::error(ErrorCode::LockTimeout, text))
}

/// A database that the ledger shares knows all jobs and targets, and this one not.
fn unknown_key(wish: &Wish<'_>, why: &str) -> Response {
    let text = if why.contains("(`jobid`)") {
        format!("Job {} not found. Please ensure job exists before mounting.", wish.job)
    } else {
        format!("Backup target {} not found.", wish.target)
    };
    Response::error(ErrorCode::Validation, text)
}

fn refuse(code: ErrorCode, text: &str) -> Planned {
    Planned::Answer(Response::error(code, text))
}
