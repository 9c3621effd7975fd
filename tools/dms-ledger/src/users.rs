//! The jobs that use a wish's target on its host, as far as a decision needs to know them.

use dms_wire::{Action, Owner, TargetType};

use crate::bindings::{self, Binding};
use crate::owner::{self, Sight};
use crate::pools;
use crate::store::{Result, Row, Statement, Store};
use crate::wish::Wish;

/// So many jobs that use a target need not all be looked at.
const CROWD: usize = 16;

/// Who mounts, or settles, is told of each job where and how it uses the target.
const OF_ALL: &str = "mount_path, type, source, access";

/// Who leaves, of its own only: of a hundred others it needs to know no more than that they are there.
const OF_ITS_OWN: &str = "CASE jobid WHEN ? THEN mount_path END, CASE jobid WHEN ? THEN type END, \
                          CASE jobid WHEN ? THEN source END, CASE jobid WHEN ? THEN access END";

/// A job that uses the target.
pub(crate) struct User {
    pub(crate) job: i64,
    /// Who keeps the binding, where that can be seen.
    pub(crate) owner: Option<Owner>,
    pub(crate) path: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) access: Option<String>,
}

impl From<Binding> for User {
    fn from(binding: Binding) -> User {
        let Binding { job, owner, path, kind, source, access, .. } = binding;
        User { job, owner, path, kind, source, access }
    }
}

impl User {
    fn from_row(mut row: Row) -> User {
        User {
            job: row.int(0).unwrap_or_default(),
            owner: row.take(1).and_then(|text| Owner::from_text(&text)),
            path: row.take(2),
            kind: row.take(3),
            source: row.take(4),
            access: row.take(5),
        }
    }
}

/// Those of them that were looked at. Of a crowd it is some, with another job than the wish's among
/// them if there is one.
pub(crate) struct Users {
    pub(crate) seen: Vec<User>,
    /// Whether there may be more of them.
    pub(crate) is_cut: bool,
}

impl Users {
    fn read(rows: Vec<Row>, wish: &Wish<'_>) -> Users {
        let is_cut = most(wish).is_some_and(|most| rows.len() >= most);
        Users { seen: rows.into_iter().map(User::from_row).collect(), is_cut }
    }

    /// How many of them are other jobs than this one.
    pub(crate) fn others(&self, job: i32) -> usize {
        self.seen.iter().filter(|user| user.job != i64::from(job)).count()
    }

    /// `5 active mount(s)`, for the log.
    pub(crate) fn count(&self) -> String {
        format!("{}{}", self.seen.len(), if self.is_cut { " or more" } else { "" })
    }
}

/// Asks for them.
pub(crate) fn asked(wish: &Wish<'_>) -> Statement {
    let (columns, values) = match wish.action {
        Action::Unmount => (OF_ITS_OWN, vec![wish.job.into(); 4]),
        Action::Mount | Action::Settle => (OF_ALL, Vec::new()),
    };
    let filter = bindings::Filter {
        target: Some(wish.target.to_string()),
        host: Some(wish.host.to_string()),
        active_only: true,
        // Where many stay for long, who leaves is one of those who came last: then it is among the first.
        newest_first: wish.action == Action::Unmount,
        limit: most(wish),
        ..bindings::Filter::default()
    };
    bindings::select(&format!("jobid, owner, {columns}"), values, &filter)
}

/// How many of them there is need to look at, if not at all.
fn most(wish: &Wish<'_>) -> Option<usize> {
    match wish.action {
        // How a pool is imported depends on all of them.
        _ if wish.request.target.kind == Some(TargetType::Zfs) => None,
        Action::Settle => None,
        Action::Mount => Some(CROWD),
        // Who leaves is told how many stay.
        Action::Unmount => Some(bindings::COUNTED + 1),
    }
}

/// Those that use the target still, of the answer to what was [`asked`]; whose keeper has ended uses it
/// no more. The job that asks speaks for itself. Part of the caller's transaction.
pub(crate) fn living(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    rows: Vec<Row>,
    me: &owner::Owner,
) -> Result<Users> {
    let mut users = Users::read(rows, wish);
    loop {
        let mut living = Vec::new();
        for user in users.seen {
            if !has_left(store, wish, &user, me)? {
                living.push(user);
            }
        }
        users.seen = living;
        if !users.is_cut || users.others(wish.job) > 0 {
            return Ok(users);
        }
        let Statement { sql, params } = asked(wish);
        users = Users::read(store.query(&sql, &params)?, wish);
    }
}

/// Whether a user is none any more; if so, that is written down.
fn has_left(
    store: &mut dyn Store,
    wish: &Wish<'_>,
    user: &User,
    me: &owner::Owner,
) -> Result<bool> {
    let keeper = user.owner.as_ref().filter(|_| user.job != i64::from(wish.job));
    if keeper.is_none_or(|keeper| me.look_for(keeper) != Sight::Ended) {
        return Ok(false);
    }
    let (target, host) = (wish.target.as_str(), wish.host.as_str());
    // Somebody else may have let it go meanwhile.
    let Some(seen) = bindings::of_job(store, user.job, target, host)? else { return Ok(true) };
    // What it has imported to write is still there: an operation that exports it lets it go.
    let is_there = wish.action == Action::Mount && pools::may_write(&seen);
    let has_left =
        seen.owner == user.owner && !is_there && bindings::release_as_seen(store, &seen)?;
    if has_left {
        log::warn!("{}", seen.unkept());
    }
    Ok(has_left)
}
