//! Who has a pool. It is one thing, whatever target ids it goes by: one target of it on a host, and
//! one host at a time that writes to it.
//!
//! What is not known to be over counts: a host whose last word on a pool is not known may have it. No
//! clock says otherwise, only the host itself or an operator.

use dms_wire::{Access, Action, ErrorCode, Response, TargetType};

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
use crate::store::{Result, Store};
use crate::users::User;
use crate::wish::Wish;

/// How the pool may be imported (`None`: the target is none), or why not.
pub(crate) type Grant = std::result::Result<Option<Access>, Box<Response>>;

/// Decides how the wish's pool may be imported. `users`: the jobs that use the target on the host.
pub(crate) fn grant(store: &mut dyn Store, wish: &Wish<'_>, users: &[User]) -> Result<Grant> {
    let target = &wish.request.target;
    let (Some(wanted), Some(pool)) = (target.access(), target.source()) else {
        return Ok(Ok(None));
    };
    let there = users.iter().map(|user| access_in(user.access.as_deref())).max();
    let is_settling = wish.action == Action::Settle;
    let access = match there {
        Some(there) if is_settling => there,
        there => there.map_or(wanted, |there| there.max(wanted)),
    };
    let others = users.iter().map(|user| user.job);
    let others: Vec<i64> =
        others.filter(|&job| job != i64::from(wish.job) && !is_settling).collect();
    if there.is_some_and(|there| there < access) && !others.is_empty() {
        let host = wish.host;
        let text = format!("pool {pool} is imported read-only on {host} for {}", jobs(&others));
        return Ok(Err(busy(text)));
    }
    Ok(match refusal(store, wish, pool, access)? {
        Some(text) => Err(busy(text)),
        None => Ok(Some(access)),
    })
}

fn busy(text: String) -> Box<Response> {
    Box::new(Response::error(ErrorCode::Busy, text))
}

fn refusal(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    pool: &str,
    access: Access,
) -> Result<Option<String>> {
    let (host, target) = (wish.host.as_str(), wish.target.as_str());
    let active = bindings::Filter { active_only: true, ..bindings::Filter::default() };
    let active = bindings::Filter { source: Some(pool.to_owned()), ..active };
    let mut users = bindings::find(store, &active)?;
    users.retain(|user| is_of(pool, &user.kind, &user.source));
    if let Some(other) = users.iter().find(|user| user.host == host && user.target != target) {
        let same: Vec<i64> = users
            .iter()
            .filter(|user| (&user.host, &user.target) == (&other.host, &other.target))
            .map(|user| user.job)
            .collect();
        let jobs = jobs(&same);
        return Ok(Some(format!(
            "pool {pool} is in use on {host} as target {}, by {jobs}",
            other.target
        )));
    }
    if access == Access::ReadOnly {
        return Ok(None);
    }
    let is_elsewhere = |user: &&Binding| user.host != host && access_of(user) == access;
    if let Some(first) = users.iter().find(is_elsewhere) {
        let there = users.iter().filter(is_elsewhere).filter(|user| user.host == first.host);
        let same: Vec<i64> = there.map(|user| user.job).collect();
        return Ok(Some(format!(
            "pool {pool} is imported read-write on {} for {}",
            first.host,
            jobs(&same)
        )));
    }
    unknown_elsewhere(store, pool, host)
}

/// An operation of another host that may have left the pool imported.
fn unknown_elsewhere(store: &mut dyn Store, pool: &str, host: &str) -> Result<Option<String>> {
    let unsettled = Some("unsettled".to_owned());
    let unsettled = journal::Filter { status: unsettled, ..journal::Filter::default() };
    let pending = journal::Filter { pending_only: true, ..journal::Filter::default() };
    let mut operations = journal::find(store, &pending)?;
    operations.extend(journal::find(store, &unsettled)?);
    operations.retain(|operation| operation.host != host);
    for operation in operations {
        if may_have(store, pool, &operation)? {
            let Operation { id, action, job, host, .. } = &operation;
            return Ok(Some(format!(
                "pool {pool} may be imported read-write on {host}: the outcome of operation {id} \
                 ({action}, job {job}) is not known"
            )));
        }
    }
    Ok(None)
}

fn may_have(store: &mut dyn Store, pool: &str, operation: &Operation) -> Result<bool> {
    let is_named = is_of(pool, &operation.kind, &operation.source);
    if let Some(access) = operation.access.as_ref().filter(|_| is_named) {
        return Ok(access != Access::ReadOnly.word());
    }
    // It does not say: then what the job had tells, or any job there.
    let rows = bindings::Filter {
        target: Some(operation.target.clone()),
        host: Some(operation.host.clone()),
        ..bindings::Filter::default()
    };
    let rows = bindings::find(store, &rows)?;
    let has_had =
        |row: &Binding| is_of(pool, &row.kind, &row.source) && access_of(row) == Access::ReadWrite;
    Ok(rows.iter().any(has_had))
}

/// The pending operation that keeps the wish from writing to its pool, wherever that is.
pub(crate) fn writer(store: &mut dyn Store, wish: &Wish<'_>) -> Result<Option<Operation>> {
    let target = &wish.request.target;
    let Some(pool) = target.source().filter(|_| target.access() == Some(Access::ReadWrite)) else {
        return Ok(None);
    };
    let pending = journal::Filter { pending_only: true, ..journal::Filter::default() };
    let mut pending = journal::find(store, &pending)?.into_iter();
    Ok(pending.find(|it| it.may_write_to_pool() && is_of(pool, &it.kind, &it.source)))
}

/// Bytewise, whatever the database makes of the names.
fn is_of(pool: &str, kind: &Option<String>, source: &Option<String>) -> bool {
    kind.as_deref() == Some(TargetType::Zfs.word()) && source.as_deref() == Some(pool)
}

fn access_of(user: &Binding) -> Access {
    access_in(user.access.as_deref())
}

/// Who does not say that it only reads may write.
fn access_in(word: Option<&str>) -> Access {
    match word {
        Some(word) if word == Access::ReadOnly.word() => Access::ReadOnly,
        _ => Access::ReadWrite,
    }
}

/// Whether a host may write to a pool because of this.
pub(crate) fn may_write(user: &Binding) -> bool {
    user.kind.as_deref() == Some(TargetType::Zfs.word()) && access_of(user) == Access::ReadWrite
}

/// A few of them.
fn jobs(all: &[i64]) -> String {
    let shown: Vec<String> = all.iter().take(8).map(i64::to_string).collect();
    let more = if all.len() > shown.len() { ", ..." } else { "" };
    format!("job {}{more}", shown.join(", "))
}
