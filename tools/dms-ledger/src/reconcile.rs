//! `reconcile`: which targets of a node have to be looked at, as requests to settle them.
//!
//! It decides nothing: the list says where to look, and `plan` decides afresh. Only what a reboot
//! has ended it says itself, since no mount outlives that.

use std::collections::BTreeSet;

use dms_wire::Action;
use serde_json::{Map, Value, json};

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
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
    let booted = match survey.uptime {
        Some(uptime) => Some(tidy::moment(store, uptime)?),
        None => None,
    };
    let is_older = |binding: &Binding| match (binding.touched(), &booted) {
        (Some(touched), Some(booted)) => touched < booted.as_str(),
        _ => false,
    };
    let is_over = |binding: &Binding| match (&binding.boot, &survey.boot) {
        // A list may be older than the boot that a job has mounted in since.
        (Some(then), Some(now)) => {
            then != now && (is_older(binding) || survey.of(&binding.target).is_none())
        }
        // The clocks of two hosts tell, and they may be wrong: not while it is mounted.
        (None, _) => is_older(binding) && survey.of(&binding.target).is_none(),
        (Some(_), None) => false,
    };
    let mut over = active(store, survey)?;
    over.retain(is_over);
    transaction(store, |store, now| {
        let mut ended = Vec::new();
        for binding in &over {
            if bindings::release_as_seen(store, binding, now)? {
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
        let target = Target {
            id,
            users: bindings.iter().filter(|binding| binding.target == id).collect(),
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

    /// Used, mounted where the ledger has it, with somebody behind it, and nothing open.
    fn is_as_it_should_be(&self) -> bool {
        let in_its_place = |mounted: &Mounted| {
            let elsewhere = |path: &String| *path != mounted.path;
            !self.users.iter().filter_map(|user| user.path.as_ref()).any(elsewhere)
        };
        self.unsettled.is_none()
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
        for user in &self.users {
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
