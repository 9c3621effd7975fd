//! `plan`: decide what a request needs done, and reserve the target until it is recorded.
//!
//! The pending row, the fence and the decision are one transaction: any number of controllers may plan
//! at once, on any SQL engine, and one that dies in it leaves nothing behind.

use std::time::{Duration, Instant};

use dms_flock::life;
use dms_wire::{Action, Deadline, Decision, ErrorCode, Plan, Response};

use crate::decide::{Decided, Source, decide};
use crate::journal::{self, Opening, Operation};
use crate::owner::{Owner, attempt};
use crate::pools;
use crate::repeat::{self, Repeat};
use crate::store::{Result, Store, StoreError, pause, transaction, transaction_seen};
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
        self.reserve(store, wish, end)
    }

    /// Opens the operation and decides. `seen`: the operation as it was before, if it is done again.
    /// `tries`: what came of the tries of this request before.
    fn decide(
        &self,
        store: &mut dyn Store,
        wish: &Wish<'_>,
        opening: &Opening<'_>,
        seen: Option<&Operation>,
        tries: &mut Tries,
    ) -> Result<Planned> {
        match decide_seen(store, wish, opening, seen, tries) {
            Ok((seq, Ok((decision, known)))) => {
                Ok(Planned::Plan(self.planned(wish, seq, decision, known)))
            }
            Ok((_, Err(answer))) => Ok(Planned::Answer(*answer)),
            Err(why @ (StoreError::Duplicate | StoreError::Overtaken)) => Err(why),
            Err(why) => {
                let answer = match &why {
                    StoreError::Foreign(key) => unknown_key(wish, key),
                    why => Response::error(ErrorCode::Database, format!("not planned: {why}")),
                };
                call_off(store, opening, tries.last().map(|(seq, _)| *seq), &answer);
                match why {
                    StoreError::Foreign(_) => Ok(Planned::Answer(answer)),
                    why => Err(why),
                }
            }
        }
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
            others: known.others,
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
            path: wish.path.as_str(),
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
    /// no operation any more. Waits while another is.
    fn reserve(&self, store: &mut dyn Store, wish: &Wish<'_>, end: Deadline) -> Result<Planned> {
        // The act is bounded by what is left; twice that, and a minute for the stages around it.
        let lease = end.left() * 2 + Duration::from_secs(60);
        let mut opening = self.opening(wish, lease);
        let waited = opening.waited;
        let begun = Instant::now();
        let mut wait = Duration::from_millis(2);
        let mut is_settled = self.is_settled;
        let mut tries = Tries::new();
        loop {
            if !is_settled {
                settle_ended(store, &self.owner)?;
            }
            opening.waited = waited.saturating_add(millis(begun.elapsed()));
            match self.decide(store, wish, &opening, None, &mut tries) {
                // What is in the way may have ended.
                Err(StoreError::Duplicate) if is_settled => {
                    is_settled = false;
                    continue;
                }
                Err(StoreError::Duplicate) => {}
                planned => return planned,
            }
            let again = match repeat::of(store, wish)? {
                Repeat::Answer(response) => return Ok(Planned::Answer(*response)),
                Repeat::Recorded(seen) => return Ok(Planned::Plan(self.recorded(wish, &seen))),
                Repeat::Again(seen) => self.decide(store, wish, &opening, Some(&seen), &mut tries),
                Repeat::LookAgain => {
                    let anew = wish.anew();
                    let opening = Opening { id: anew.id.as_str(), ..opening };
                    self.decide(store, &anew, &opening, None, &mut tries)
                }
                Repeat::No | Repeat::Pending => Err(StoreError::Duplicate),
            };
            match again {
                Err(StoreError::Duplicate | StoreError::Overtaken) => {}
                planned => return planned,
            }
            if end.passed() {
                return Ok(Planned::Answer(give_up(store, wish, &opening)?));
            }
            pause(wait.min(end.left()));
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }
}

/// What each try of a request has come to, with its fence.
type Tries = Vec<(u64, Decided)>;

/// Decides in one transaction, and sees to it that what was decided is there.
fn decide_seen(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    opening: &Opening<'_>,
    seen: Option<&Operation>,
    tries: &mut Tries,
) -> Result<(u64, Decided)> {
    let plan = |store: &mut dyn Store| {
        let (fence, decided) = decide(store, wish, opening, seen)?;
        tries.push((fence, decided));
        Ok(fence)
    };
    let is_there = |store: &mut dyn Store, fence: &u64| {
        Ok(journal::is_open(store, opening.id, *fence)?.is_some())
    };
    let planned = match transaction_seen(store, plan, is_there) {
        // A try that was rolled back may have had the same fence: the last one counts.
        Ok(_) => tries.pop(),
        // Galera may say of a COMMIT that it has failed, and do it, in its own time: then it is our own row
        // that is in the way of a later try.
        Err(why @ (StoreError::Duplicate | StoreError::Overtaken)) => {
            let ours = position_done(store, opening.id, tries)?.ok_or(why)?;
            Some(tries.swap_remove(ours))
        }
        Err(why) => return Err(why),
    };
    planned.ok_or_else(|| StoreError::Failed("nothing was decided".into()))
}

/// Which of these tries is pending, if one is.
fn position_done(store: &mut dyn Store, id: &str, tries: &Tries) -> Result<Option<usize>> {
    for (at, (fence, decided)) in tries.iter().enumerate() {
        if let Ok((decision, _)) = decided
            && journal::is_planned(store, id, *fence, *decision)?
        {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Notes that an operation was not planned: nothing is done for it. It is not known whether it is pending
/// with this fence, as an error in a COMMIT does not say what became of it.
fn call_off(store: &mut dyn Store, opening: &Opening<'_>, fence: Option<u64>, answer: &Response) {
    let closed = transaction(store, |store| match fence {
        Some(seq) => journal::close(store, opening.id, seq, answer),
        None => Ok(false),
    });
    let noted = match closed {
        Ok(false) => match journal::give_up(store, opening, answer) {
            // It is there as it was before.
            Err(StoreError::Duplicate) => journal::touch(store, opening.id),
            noted => noted,
        },
        closed => closed.map(|_| ()),
    };
    if let Err(why) = noted {
        log::warn!("operation {} may stay pending: {why}", opening.id);
        // Nobody has to wait for it.
        let attempt = attempt(opening.id, fence.and_then(|seq| i64::try_from(seq).ok()));
        if let Err(why) = life::abandon(&attempt) {
            log::warn!("others will wait for operation {}: {why}", opening.id);
        }
    }
}

/// Ends the operation of a plan that nobody has taken: nothing was acted on.
pub(crate) fn withdraw(store: &mut dyn Store, plan: &Plan) {
    let answer = Response::error(ErrorCode::Internal, "nobody took the plan");
    let closed = transaction(store, |store| {
        journal::close(store, plan.operation.as_str(), plan.seq, &answer)
    });
    if let Err(why) = closed {
        log::warn!("operation {} stays pending: {why}", plan.operation);
    }
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
