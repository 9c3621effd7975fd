//! `plan`: decide what a request needs done, and reserve the target until it is recorded.
//!
//! First the pending row, in a transaction of its own; then, alone on the target, read the ledger;
//! then decide, with a fence. So any number of controllers may plan at once, on any SQL engine.

use std::time::Duration;

use dms_wire::{
    Action, Deadline, Decision, ErrorCode, Host, Invalid, MountPath, OperationId, Plan, Request,
    Response, TargetId,
};

use crate::bindings::{self, Binding};
use crate::journal::{self, Opening, Operation};
use crate::owner::Owner;
use crate::repeat::{self, Repeat};
use crate::store::{Now, Result, Store, StoreError, pause, transaction};
use crate::takeover::settle_ended;

/// What planning needs beside the request and the database.
pub(crate) struct Planner {
    /// The ledger's id.
    pub(crate) ledger: String,
    pub(crate) owner: Owner,
    pub(crate) mount_base: String,
    /// How long one request may take, all in all.
    pub(crate) bound: Duration,
}

/// A request that says all that the ledger needs to know.
pub(crate) struct Wish<'a> {
    pub(crate) request: &'a Request,
    pub(crate) action: Action,
    pub(crate) job: i32,
    pub(crate) host: &'a Host,
    pub(crate) target: &'a TargetId,
    pub(crate) id: OperationId,
    /// Where the request wants it mounted; of an unmount, where the ledger says.
    pub(crate) path: MountPath,
}

/// The result: a plan, or the answer to give at once.
pub(crate) enum Planned {
    Plan(Plan),
    Answer(Response),
}

impl<'a> Wish<'a> {
    /// Checks what the ledger requires: job, host and target, and of a mount what it needs.
    pub(crate) fn check(
        request: &'a Request,
        mount_base: &str,
        new_id: &str,
    ) -> std::result::Result<Self, Invalid> {
        let missing = |field: &str| Invalid::new(format!("Missing required field: {field}"));
        if request.plan.is_some() {
            return Err(Invalid::new("the request has a plan already: one ledger per request"));
        }
        let action = request.action.ok_or_else(|| missing("action"))?;
        if action == Action::Mount {
            request.target.check_mountable()?;
        }
        let target = &request.target.id;
        Ok(Wish {
            action,
            job: request.job.ok_or_else(|| missing("jobid"))?,
            host: request.host.as_ref().ok_or_else(|| missing("host"))?,
            target,
            id: match &request.request_id {
                Some(id) => id.clone(),
                None => OperationId::try_from(new_id.to_owned())?,
            },
            path: match &request.target.path {
                Some(path) => path.clone(),
                None => MountPath::default_for(mount_base, target)?,
            },
            request,
        })
    }
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
            Reserved::Ours => self.decide_or_close(store, wish),
            Reserved::Answered(answer) => Ok(Planned::Answer(answer)),
            Reserved::Recorded(seen) => Ok(Planned::Plan(self.recorded(wish, &seen))),
        }
    }

    /// Decides; if that fails, nothing has been acted on, and the target is free again.
    fn decide_or_close(&self, store: &mut dyn Store, wish: &Wish<'_>) -> Result<Planned> {
        let planned = transaction(store, |store, now| self.decide(store, wish, now));
        if let Err(why) = &planned {
            let answer = Response::error(ErrorCode::Database, format!("not planned: {why}"));
            let closed = transaction(store, |store, now| {
                journal::close(store, wish.id.as_str(), None, &answer, now)
            });
            if let Err(why) = closed {
                log::warn!("operation {} stays pending: {why}", wish.id);
            }
        }
        planned
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
            action: wish.action,
            decision,
        }
    }

    /// Makes the wish the one pending operation of its target, unless it is a repeat that needs
    /// no operation any more.
    fn reserve(&self, store: &mut dyn Store, wish: &Wish<'_>, end: Deadline) -> Result<Reserved> {
        // The act is bounded by what is left; twice that, and a minute for the stages around it.
        let lease = end.left() * 2 + Duration::from_secs(60);
        let is_mount = wish.action == Action::Mount;
        let opening = Opening {
            id: wish.id.as_str(),
            target: wish.target.as_str(),
            job: wish.job,
            host: wish.host.as_str(),
            action: wish.action,
            path: is_mount.then_some(wish.path.as_str()),
            kind: wish.request.target.kind,
            source: wish.request.target.source(),
            request: wish.request,
            owner: &self.owner,
            lease: i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2),
        };
        let mut wait = Duration::from_millis(2);
        loop {
            settle_ended(store, &self.owner)?;
            match journal::open(store, &opening) {
                Err(StoreError::Duplicate) => {}
                Err(why) => return Err(why),
                Ok(()) => return Ok(Reserved::Ours),
            }
            match repeat::of(store, wish)? {
                Repeat::Answer(response) => return Ok(Reserved::Answered(*response)),
                Repeat::Recorded(seen) => return Ok(Reserved::Recorded(*seen)),
                Repeat::Again(seen) => match journal::reopen(store, &seen, &opening) {
                    Ok(true) => return Ok(Reserved::Ours),
                    Ok(false) | Err(StoreError::Duplicate) => {}
                    Err(why) => return Err(why),
                },
                Repeat::No | Repeat::Pending => {}
            }
            if end.passed() {
                return Ok(Reserved::Answered(still_pending(store, wish)?));
            }
            pause(wait.min(end.left()));
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }

    /// Alone on the target: reads the ledger and decides. One transaction.
    fn decide(&self, store: &mut dyn Store, wish: &Wish<'_>, now: &Now) -> Result<Planned> {
        let users = bindings::users(store, wish.target.as_str(), wish.host.as_str())?;
        log::info!(
            "Found {} active mount(s) for target {} on host {}",
            users.len(),
            wish.target,
            wish.host
        );
        let choice = match wish.action {
            Action::Mount => self.decide_mount(store, wish, &users)?,
            Action::Unmount => self.decide_unmount(store, wish, &users)?,
        };
        match choice {
            Ok((decision, known)) => {
                let path = known.path.as_str();
                let (target, host) = (wish.target.as_str(), wish.host.as_str());
                let seq =
                    journal::decide(store, wish.id.as_str(), target, host, path, decision, now)?;
                Ok(Planned::Plan(self.planned(wish, seq, decision, known)))
            }
            Err(answer) => {
                journal::close(store, wish.id.as_str(), None, &answer, now)?;
                Ok(Planned::Answer(*answer))
            }
        }
    }

    /// A mount is always "make sure that it is mounted": the kernel is the truth. On a host a
    /// target has one path, and a path one target.
    fn decide_mount(
        &self,
        store: &mut dyn Store,
        wish: &Wish<'_>,
        users: &[Binding],
    ) -> Result<Choice> {
        let path = wish.path.as_str();
        let elsewhere = users.iter().find_map(|b| b.path.as_deref().filter(|&p| p != path));
        if let Some(elsewhere) = elsewhere {
            let text = format!("target {} is mounted at {elsewhere}, not at {path}", wish.target);
            return Ok(Err(Box::new(Response::error(ErrorCode::Busy, text))));
        }
        let here = bindings::Filter {
            host: Some(wish.host.to_string()),
            path: Some(path.to_owned()),
            active_only: true,
            ..bindings::Filter::default()
        };
        let here = bindings::find(store, &here)?;
        if let Some(other) = here.iter().find(|b| b.target != wish.target.as_str()) {
            let text = format!("{path} is in use by target {}", other.target);
            return Ok(Err(Box::new(Response::error(ErrorCode::Busy, text))));
        }
        let target = &wish.request.target;
        Ok(Ok((
            Decision::Mount,
            Source {
                path: wish.path.clone(),
                kind: target.kind,
                source: target.source().map(str::to_owned),
            },
        )))
    }

    /// Physical only for the last user; where it was mounted, the job's binding knows.
    fn decide_unmount(
        &self,
        store: &mut dyn Store,
        wish: &Wish<'_>,
        users: &[Binding],
    ) -> Result<Choice> {
        let others = users.iter().filter(|b| b.job != i64::from(wish.job)).count();
        let mine = users.iter().find(|b| b.job == i64::from(wish.job));
        let known = match mine {
            Some(binding) => Source::recorded(&binding.path, &binding.kind, &binding.source, wish),
            None => match self.unsettled(store, wish)? {
                Some(op) => Source::recorded(&op.path, &op.kind, &op.source, wish),
                None => return Ok(Err(Box::new(no_active_mount(others)))),
            },
        };
        if others == 0 {
            log::info!("Single active mount detected. Sending unmount request");
            Ok(Ok((Decision::Unmount, known)))
        } else {
            log::info!(
                "Multiple active mounts ({}) detected. Skipping physical unmount",
                users.len()
            );
            Ok(Ok((Decision::Release, known)))
        }
    }

    /// The job's last operation on the target whose outcome is unknown: the job may ask again for
    /// what it was never told.
    fn unsettled(&self, store: &mut dyn Store, wish: &Wish<'_>) -> Result<Option<Operation>> {
        let filter = journal::Filter {
            target: Some(wish.target.to_string()),
            host: Some(wish.host.to_string()),
            job: Some(wish.job),
            status: Some("unsettled".to_owned()),
            limit: Some(1),
            ..journal::Filter::default()
        };
        Ok(journal::find(store, &filter)?.into_iter().next())
    }
}

/// What came of the wish for an operation of one's own.
enum Reserved {
    /// It is pending, and it is ours.
    Ours,
    /// There is nothing to do but to say this.
    Answered(Response),
    /// It was carried out long ago.
    Recorded(Operation),
}

/// A decision and what it is about, or the refusal.
type Choice = std::result::Result<(Decision, Source), Box<Response>>;

/// What is mounted, or to be mounted, and where.
struct Source {
    path: MountPath,
    kind: Option<dms_wire::TargetType>,
    source: Option<String>,
}

impl Source {
    /// As the ledger recorded it; what it does not know (a row of the Python client), as the
    /// request says.
    fn recorded(
        path: &Option<String>,
        kind: &Option<String>,
        source: &Option<String>,
        wish: &Wish<'_>,
    ) -> Source {
        let path = path.clone().and_then(|path| MountPath::try_from(path).ok());
        let kind = kind.as_deref().and_then(dms_wire::TargetType::from_word);
        Source {
            path: path.unwrap_or_else(|| wish.path.clone()),
            kind: kind.or(wish.request.target.kind),
            source: source.clone(),
        }
    }
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
    let by = other.first().map_or_else(
        || format!("a mount at {} is pending", wish.path),
        |other| format!("operation {} of job {} is pending", other.id, other.job),
    );
    let text = format!("timeout: gave up waiting for {} on {}: {by}", wish.target, wish.host);
    Ok(Response::error(ErrorCode::LockTimeout, text))
}

fn no_active_mount(others: usize) -> Response {
    let answer = Response::error(ErrorCode::NoActiveMount, "No active mount found for this job");
    Response { unmounted: Some(false), active_mounts_remaining: Some(others as u64), ..answer }
}

fn refuse(code: ErrorCode, text: &str) -> Planned {
    Planned::Answer(Response::error(code, text))
}
