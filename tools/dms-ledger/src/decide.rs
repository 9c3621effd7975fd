//! The decision: alone on the target, what does this wish need done?
//!
//! A mount is always "make sure"; an unmount is physical only for the last user. All of it is one
//! transaction: first the pending row, with the fence, and only then what it is decided by. Who else has
//! planned for the target is done with it by then, and who comes next waits.

use dms_wire::{Access, Action, Decision, ErrorCode, MountPath, Response, TargetType};

use crate::bindings;
use crate::journal::{self, Opening, Operation};
use crate::owner::{Owner, Sight};
use crate::pools;
use crate::store::{Result, Store};
use crate::users::{self, User, Users};
use crate::wish::Wish;

/// The decision and what it is about; or the refusal, which is on record.
pub(crate) type Decided = std::result::Result<(Decision, Source), Box<Response>>;

/// What is mounted, or to be mounted, and where.
pub(crate) struct Source {
    pub(crate) path: MountPath,
    pub(crate) kind: Option<TargetType>,
    pub(crate) source: Option<String>,
    /// ZFS: how the pool has to be imported.
    pub(crate) access: Option<Access>,
    /// How many other jobs use it there, if all of them were counted.
    pub(crate) others: Option<u64>,
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
            access: None,
            others: None,
        }
    }
}

/// Opens the operation, reads the ledger and decides. Part of the caller's transaction. `seen`: the
/// operation as it was before, if it is opened again. Returns the fence, too.
///
/// The errors are those of [`journal::open`], and of the engine.
pub(crate) fn decide(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    opening: &Opening<'_>,
    seen: Option<&Operation>,
) -> Result<(u64, Decided)> {
    let mut looks = vec![users::asked(wish)];
    if wish.action == Action::Mount {
        looks.push(bindings::row_of(wish));
    }
    let (fence, mut found) = journal::open(store, opening, seen, looks)?;
    let fence = u64::try_from(fence).unwrap_or_default();
    let is_new = found.get(1).is_some_and(Vec::is_empty);
    let users = found.first_mut().map(std::mem::take).unwrap_or_default();
    let users = users::living(store, wish, users, opening.owner)?;
    log::info!(
        "Found {} active mount(s) for target {} on host {}",
        users.count(),
        wish.target,
        wish.host
    );
    let decided = match wish.action {
        Action::Mount if is_of_ended_run(wish, opening.owner) => Err(Box::new(run_has_ended(wish))),
        Action::Mount => decide_mount(store, wish, &users.seen)?,
        Action::Unmount => decide_unmount(store, wish, users, seen)?,
        Action::Settle => decide_settle(store, wish, &users.seen)?,
    };
    match &decided {
        Ok((decision, known)) => {
            if is_new {
                bindings::announce(store, wish)?;
            }
            journal::decide(store, opening, *decision, known.path.as_str())?;
        }
        Err(answer) => journal::refuse(store, opening.id, fence, answer)?,
    }
    Ok((fence, decided))
}

/// A mount is always "make sure that it is mounted": the kernel is the truth. On a host a
/// target has one path, and a path one target.
fn decide_mount(store: &mut dyn Store, wish: &Wish<'_>, users: &[User]) -> Result<Decided> {
    let path = wish.path.as_str();
    let elsewhere = users.iter().find_map(|b| b.path.as_deref().filter(|&p| p != path));
    if let Some(elsewhere) = elsewhere {
        let text = format!("target {} is mounted at {elsewhere}, not at {path}", wish.target);
        return Ok(Err(Box::new(Response::error(ErrorCode::Busy, text))));
    }
    // Where it is used already, no other target was let in.
    let is_here = users.iter().any(|b| b.path.as_deref() == Some(path));
    if let Some(other) = if is_here { None } else { other_target_at(store, wish, path)? } {
        let text = format!("{path} is in use by target {other}");
        return Ok(Err(Box::new(Response::error(ErrorCode::Busy, text))));
    }
    let access = match pools::grant(store, wish, users)? {
        Ok(access) => access,
        Err(answer) => return Ok(Err(answer)),
    };
    let target = &wish.request.target;
    Ok(Ok((
        Decision::Mount,
        Source {
            path: wish.path.clone(),
            kind: target.kind,
            source: target.source().map(str::to_owned),
            access,
            others: None,
        },
    )))
}

/// Another target that jobs use at the path on the host.
fn other_target_at(store: &mut dyn Store, wish: &Wish<'_>, path: &str) -> Result<Option<String>> {
    let here = bindings::Filter {
        host: Some(wish.host.to_string()),
        path: Some(path.to_owned()),
        active_only: true,
        ..bindings::Filter::default()
    };
    let mut here = bindings::find(store, &here)?.into_iter().map(|binding| binding.target);
    Ok(here.find(|target| target != wish.target.as_str()))
}

/// Physical only for the last user; where it was mounted, the job's binding knows.
fn decide_unmount(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    users: Users,
    seen: Option<&Operation>,
) -> Result<Decided> {
    let (target, host) = (wish.target.as_str(), wish.host.as_str());
    let (others, count, is_cut) = (users.others(wish.job), users.count(), users.is_cut);
    let mine = match users.seen.into_iter().find(|user| user.job == i64::from(wish.job)) {
        None if is_cut => bindings::of_job(store, wish.job, target, host)?.map(User::from),
        mine => mine,
    };
    if mine.as_ref().is_some_and(|mine| is_of_another_run(mine, wish)) {
        let all = bindings::count_others(store, None, target, host)?;
        return Ok(Err(Box::new(no_active_mount(all))));
    }
    let known = match mine {
        Some(ref mine) => Source::recorded(&mine.path, &mine.kind, &mine.source, wish),
        // It may be this very operation that was unsettled, until it was opened again.
        None => match unsettled(store, wish)?.as_ref().or(seen.filter(|op| op.is_unsettled())) {
            Some(op) => Source::recorded(&op.path, &op.kind, &op.source, wish),
            None => {
                let others = bindings::count_others(store, Some(wish.job), target, host)?;
                return Ok(Err(Box::new(no_active_mount(others))));
            }
        },
    };
    let known = Source { others: Some(others.min(bindings::COUNTED) as u64), ..known };
    if others == 0 {
        log::info!("Single active mount detected. Sending unmount request");
        Ok(Ok((Decision::Unmount, known)))
    } else {
        log::info!("Multiple active mounts ({count}) detected. Skipping physical unmount");
        Ok(Ok((Decision::Release, known)))
    }
}

/// The job has mounted it anew since, and not by who asks for the unmount: a message of a run that was
/// killed may come late.
fn is_of_another_run(mine: &User, wish: &Wish<'_>) -> bool {
    wish.request.owner.is_some() && mine.owner != wish.request.owner
}

/// Who asks for the mount has ended, and his request comes late: in the place of the next run's, his would be
/// a binding that nobody keeps, and the target would be taken away under the next run.
fn is_of_ended_run(wish: &Wish<'_>, me: &Owner) -> bool {
    wish.request.owner.as_ref().is_some_and(|owner| me.look_for(owner) == Sight::Ended)
}

fn run_has_ended(wish: &Wish<'_>) -> Response {
    let text = format!("request {} is late: the run of job {} has ended", wish.id, wish.job);
    Response::error(ErrorCode::Stale, text)
}

/// Mounted where it is used, and only there. To mount it again, the request has to say from where.
fn decide_settle(store: &mut dyn Store, wish: &Wish<'_>, users: &[User]) -> Result<Decided> {
    let Some(user) = users.iter().find(|b| b.path.is_some()).or(users.first()) else {
        let path = wish.path.clone();
        let kind = wish.request.target.kind;
        let known = Source { path, kind, source: None, access: None, others: None };
        return Ok(Ok((Decision::Unmount, known)));
    };
    if let Err(why) = wish.request.target.check_mountable() {
        return Ok(Err(Box::new(Response::invalid(&why))));
    }
    let asked = wish.request.target.source();
    let mut known = users.iter().filter_map(|user| user.source.as_deref()).peekable();
    if known.peek().is_some() && !known.any(|known| Some(known) == asked) {
        let text = format!("target {} is mounted from elsewhere since", wish.target);
        return Ok(Err(Box::new(Response::error(ErrorCode::Busy, text))));
    }
    Ok(pools::grant(store, wish, users)?.map(|access| {
        let known = Source::recorded(&user.path, &user.kind, &user.source, wish);
        (Decision::Mount, Source { access, ..known })
    }))
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

fn no_active_mount(others: u64) -> Response {
    let answer = Response::error(ErrorCode::NoActiveMount, "No active mount found for this job");
    Response { unmounted: Some(false), active_mounts_remaining: Some(others), ..answer }
}
