//! `reconcile`: which targets of a node have to be looked at, as requests to settle them.
//!
//! It decides nothing: the list says where to look, and `plan` decides afresh. Only what a reboot
//! has ended it says itself, since no mount outlives that.

use std::collections::BTreeSet;

use dms_wire::Action;
use serde_json::{Map, Value, json};

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
use crate::owner::{Owner, Sight};
use crate::pools;
use crate::store::{Result, Store, transaction};
use crate::survey::{Mounted, Survey};
use crate::tidy;

/// Who uses what on the node, as far as it concerns one target.
struct Target<'a> {
    id: &'a str,
    users: Vec<&'a Binding>,
    /// The latest operation on it that nobody knows the outcome of.
    unsettled: Option<&'a Operation>,
    mounted: Option<&'a Mounted>,
    /// Whether somebody's keeper has ended, and only the request can let it go.
    is_unkept: bool,
}

/// What there is to do for a target.
pub(crate) enum Finding {
    /// Nothing but this request can tell.
    Request(Map<String, Value>),
    /// It cannot be done, or should not: what the operator has to know.
    Left(String),
}

/// Releases the bindings that an earlier boot of the node has ended; returns them.
pub(crate) fn end_earlier_boots(store: &mut dyn Store, survey: &Survey) -> Result<Vec<Binding>> {
    let booted = tidy::moment(store, survey.uptime)?;
    let is_older =
        |binding: &Binding| binding.touched().is_some_and(|touched| touched < booted.as_str());
    let is_over = |binding: &Binding| match &binding.boot {
        // A list may be older than the boot that a job has mounted in since.
        Some(then) => {
            let is_there = survey.of(&binding.target).is_some();
            // Nor may another host be let into a pool that something has imported since.
            let is_older = is_older(binding) && !pools::may_write(binding);
            *then != survey.boot && (is_older || !is_there)
        }
        // The clocks of two hosts tell, and they may be wrong: not while it is mounted.
        None => is_older(binding) && survey.of(&binding.target).is_none(),
    };
    let mut over = active(store, survey)?;
    over.retain(is_over);
    release(store, &over)
}

/// Releases the bindings whose keepers can be seen to have ended; returns them.
pub(crate) fn end_unkept(
    store: &mut dyn Store,
    survey: &Survey,
    me: &Owner,
) -> Result<Vec<Binding>> {
    let mut over = active(store, survey)?;
    over.retain(|binding| is_unkept(binding, me));
    // As long as its pool is imported, no other host may be let in: what exports it lets it go.
    over.retain(|binding| !pools::may_write(binding) || survey.of(&binding.target).is_none());
    release(store, &over)
}

fn is_unkept(binding: &Binding, me: &Owner) -> bool {
    binding.owner.as_ref().is_some_and(|keeper| me.look_for(keeper) == Sight::Ended)
}

fn release(store: &mut dyn Store, over: &[Binding]) -> Result<Vec<Binding>> {
    transaction(store, |store| {
        let mut ended = Vec::new();
        for binding in over {
            if bindings::release_as_seen(store, binding)? {
                ended.push(binding.clone());
            }
        }
        Ok(ended)
    })
}

/// Compares the ledger with what is mounted on the node, target by target. `take_unknown`: also
/// what is mounted and the ledger has never heard of.
pub(crate) fn compare(
    store: &mut dyn Store,
    survey: &Survey,
    me: &Owner,
    take_unknown: bool,
) -> Result<Vec<Finding>> {
    let bindings = active(store, survey)?;
    let unsettled = journal::find(
        store,
        &journal::Filter {
            host: Some(survey.host.to_string()),
            status: Some("unsettled".to_owned()),
            ..journal::Filter::default()
        },
    )?;
    let ids: BTreeSet<&str> = (bindings.iter().map(|binding| binding.target.as_str()))
        .chain(unsettled.iter().map(|operation| operation.target.as_str()))
        .chain(survey.mounts.iter().filter_map(|mounted| mounted.target.as_deref()))
        .collect();
    let mut findings = Vec::new();
    for id in ids {
        let users: Vec<&Binding> = bindings.iter().filter(|binding| binding.target == id).collect();
        let target = Target {
            id,
            is_unkept: users.iter().any(|user| is_unkept(user, me)),
            users,
            unsettled: unsettled.iter().find(|operation| operation.target == id),
            mounted: survey.of(id),
        };
        findings.extend(target.look(store, survey, take_unknown)?);
    }
    Ok(findings)
}

fn active(store: &mut dyn Store, survey: &Survey) -> Result<Vec<Binding>> {
    let filter = bindings::Filter {
        host: Some(survey.host.to_string()),
        active_only: true,
        ..bindings::Filter::default()
    };
    bindings::find(store, &filter)
}

impl Target<'_> {
    fn look(
        &self,
        store: &mut dyn Store,
        survey: &Survey,
        take_unknown: bool,
    ) -> Result<Option<Finding>> {
        if self.is_as_it_should_be() {
            return Ok(None);
        }
        let request = self.request(store, survey)?;
        let host = &survey.host;
        if self.users.is_empty() {
            let is_known =
                take_unknown || self.unsettled.is_some() || self.is_known(store, survey)?;
            return Ok(Some(match (is_known, self.mounted) {
                (false, Some(mounted)) => Finding::Left(format!(
                    "target {} is mounted at {} on {host}, and the ledger has never heard of it: \
                     left alone",
                    self.id, mounted.path
                )),
                _ => Finding::Request(request),
            }));
        }
        let has = |name: &str| request["backup_target"].get(name).is_some_and(|v| !v.is_null());
        if !has("type") || !(has("secret_ref") || has("filesystem_export")) {
            return Ok(Some(Finding::Left(format!(
                "job {} uses target {} on {host}, and the ledger does not know what to mount: the \
                 next mount request does",
                self.users[0].job, self.id
            ))));
        }
        Ok(Some(Finding::Request(request)))
    }

    /// Used by jobs that live, mounted where the ledger has it, with somebody behind it, and nothing
    /// open.
    fn is_as_it_should_be(&self) -> bool {
        let in_its_place = |mounted: &Mounted| {
            let elsewhere = |path: &String| *path != mounted.path;
            !self.users.iter().filter_map(|user| user.path.as_ref()).any(elsewhere)
        };
        self.unsettled.is_none()
            && !self.is_unkept
            && !self.users.is_empty()
            && self.mounted.is_some_and(|mounted| mounted.is_served() && in_its_place(mounted))
    }

    fn is_known(&self, store: &mut dyn Store, survey: &Survey) -> Result<bool> {
        let (target, host) = (Some(self.id.to_owned()), Some(survey.host.to_string()));
        let rows = bindings::Filter {
            target: target.clone(),
            host: host.clone(),
            ..bindings::Filter::default()
        };
        let limit = Some(1);
        let operations = journal::Filter { target, host, limit, ..journal::Filter::default() };
        Ok(!bindings::find(store, &rows)?.is_empty()
            || !journal::find(store, &operations)?.is_empty())
    }

    /// The request to settle it. What is mounted there, the last mount's own request says best.
    fn request(&self, store: &mut dyn Store, survey: &Survey) -> Result<Map<String, Value>> {
        let mut target = Map::new();
        // A pool is imported as whoever wants most of it has asked.
        let (most, least): (Vec<&Binding>, Vec<&Binding>) =
            self.users.iter().partition(|user| pools::may_write(user));
        for user in most.into_iter().chain(least) {
            if let Some(asked) = journal::last_mount(store, user)? {
                target = asked;
                break;
            }
        }
        target.insert("id".into(), self.id.into());
        let user = self.users.iter().find(|user| user.path.is_some()).or(self.users.first());
        let kind = user.and_then(|user| user.kind.clone());
        let source = user.and_then(|user| user.source.clone());
        let mounted = self.mounted;
        let path = (user.and_then(|user| user.path.clone()))
            .or(mounted.map(|mounted| mounted.path.clone()))
            .or(self.unsettled.and_then(|operation| operation.path.clone()));
        let kind = kind.or(mounted.and_then(|mounted| mounted.kind.clone()));
        let source = source.or(mounted.and_then(|mounted| mounted.remembered().cloned()));
        // A pool may be imported, and not be seen among what is mounted.
        let pool = self.unsettled.filter(|operation| operation.may_write_to_pool());
        let kind = kind.or(pool.and_then(|operation| operation.kind.clone()));
        let source = source.or(pool.and_then(|operation| operation.source.clone()));
        let place = if kind.as_deref() == Some("s3") { "secret_ref" } else { "filesystem_export" };
        for (name, value) in
            [("type", kind), (place, source), ("filesystem_export_mount_path", path)]
        {
            if let Some(value) = value {
                target.insert(name.into(), value.into());
            }
        }
        let mut request = Map::new();
        request.insert("host".into(), survey.host.as_str().into());
        request.insert("action".into(), Action::Settle.word().into());
        request.insert("backup_target".into(), json!(target));
        Ok(request)
    }
}
