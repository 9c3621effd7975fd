//! The decision: alone on the target, what does this wish need done?
//!
//! A mount is always "make sure"; an unmount is physical only for the last user. All of it is one
//! transaction, which also takes the fence.

use dms_wire::{Action, Decision, ErrorCode, MountPath, Response, TargetType};

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
use crate::store::{Now, Result, Store};
use crate::wish::Wish;

/// The fence, the decision and what it is about; or the refusal, which is on record.
pub(crate) type Decided = std::result::Result<(u64, Decision, Source), Box<Response>>;

/// A decision and what it is about, or the refusal.
type Choice = std::result::Result<(Decision, Source), Box<Response>>;

/// What is mounted, or to be mounted, and where.
pub(crate) struct Source {
    pub(crate) path: MountPath,
    pub(crate) kind: Option<TargetType>,
    pub(crate) source: Option<String>,
}

impl Source {
    /// As the ledger recorded it; what it does not know (a row of the Python client), as the
    /// request says.
    pub(crate) fn recorded(
        path: &Option<String>,
        kind: &Option<String>,
        source: &Option<String>,
        wish: &Wish<'_>,
    ) -> Source {
        let path = path.clone().and_then(|path| MountPath::try_from(path).ok());
        let kind = kind.as_deref().and_then(TargetType::from_word);
        Source {
            path: path.unwrap_or_else(|| wish.path.clone()),
            kind: kind.or(wish.request.target.kind),
            source: source.clone(),
        }
    }
}

/// Alone on the target: reads the ledger and decides. One transaction. `seen`: the operation as it
/// was before it was done again.
pub(crate) fn decide(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    seen: Option<&Operation>,
    now: &Now,
) -> Result<Decided> {
    let users = bindings::users(store, wish.target.as_str(), wish.host.as_str())?;
    log::info!(
        "Found {} active mount(s) for target {} on host {}",
        users.len(),
        wish.target,
        wish.host
    );
    let choice = match wish.action {
        Action::Mount => decide_mount(store, wish, &users)?,
        Action::Unmount => decide_unmount(store, wish, &users, seen)?,
        Action::Settle => decide_settle(wish, &users),
    };
    match choice {
        Ok((decision, known)) => {
            if wish.action == Action::Mount {
                bindings::announce(store, wish, now)?;
            }
            let path = known.path.as_str();
            let (target, host) = (wish.target.as_str(), wish.host.as_str());
            let seq = journal::decide(store, wish.id.as_str(), target, host, path, decision, now)?;
            Ok(Ok((seq, decision, known)))
        }
        Err(answer) => {
            journal::close(store, wish.id.as_str(), None, &answer, now)?;
            Ok(Err(answer))
        }
    }
}

/// A mount is always "make sure that it is mounted": the kernel is the truth. On a host a
/// target has one path, and a path one target.
fn decide_mount(store: &mut dyn Store, wish: &Wish<'_>, users: &[Binding]) -> Result<Choice> {
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
    store: &mut dyn Store,
    wish: &Wish<'_>,
    users: &[Binding],
    seen: Option<&Operation>,
) -> Result<Choice> {
    let others = users.iter().filter(|b| b.job != i64::from(wish.job)).count();
    let mine = users.iter().find(|b| b.job == i64::from(wish.job));
    let known = match mine {
        Some(binding) => Source::recorded(&binding.path, &binding.kind, &binding.source, wish),
        // It may be this very operation that was unsettled, until it was opened again.
        None => match unsettled(store, wish)?.as_ref().or(seen.filter(|op| op.is_unsettled())) {
            Some(op) => Source::recorded(&op.path, &op.kind, &op.source, wish),
            None => return Ok(Err(Box::new(no_active_mount(others)))),
        },
    };
    if others == 0 {
        log::info!("Single active mount detected. Sending unmount request");
        Ok(Ok((Decision::Unmount, known)))
    } else {
        log::info!("Multiple active mounts ({}) detected. Skipping physical unmount", users.len());
        Ok(Ok((Decision::Release, known)))
    }
}

/// Mounted where it is used, and only there. To mount it again, the request has to say from where.
fn decide_settle(wish: &Wish<'_>, users: &[Binding]) -> Choice {
    let Some(user) = users.iter().find(|b| b.path.is_some()).or(users.first()) else {
        let path = wish.path.clone();
        let known = Source { path, kind: wish.request.target.kind, source: None };
        return Ok((Decision::Unmount, known));
    };
    if let Err(why) = wish.request.target.check_mountable() {
        return Err(Box::new(Response::invalid(&why)));
    }
    let asked = wish.request.target.source();
    let mut known = users.iter().filter_map(|user| user.source.as_deref()).peekable();
    if known.peek().is_some() && !known.any(|known| Some(known) == asked) {
        let text = format!("target {} is mounted from elsewhere since", wish.target);
        return Err(Box::new(Response::error(ErrorCode::Busy, text)));
    }
    Ok((Decision::Mount, Source::recorded(&user.path, &user.kind, &user.source, wish)))
}

/// The job's last operation on the target whose outcome is unknown: the job may ask again for
/// what it was never told.
fn unsettled(store: &mut dyn Store, wish: &Wish<'_>) -> Result<Option<Operation>> {
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

fn no_active_mount(others: usize) -> Response {
    let answer = Response::error(ErrorCode::NoActiveMount, "No active mount found for this job");
    Response { unmounted: Some(false), active_mounts_remaining: Some(others as u64), ..answer }
}
