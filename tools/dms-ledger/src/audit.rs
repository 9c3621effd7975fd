//! `audit`: do the rows agree with each other, and with what is mounted? It changes nothing.

use std::collections::BTreeMap;

use dms_cli::{Column, Table};
use dms_wire::Host;
use serde_json::json;

use crate::bindings::{self, Binding};
use crate::journal::{self, Operation};
use crate::store::{Result, Store};
use crate::survey::{Mounted, Survey};

/// Something that is not as it should be.
pub(crate) struct Finding {
    /// A stable word for programs.
    what: &'static str,
    target: String,
    /// None: it is about all jobs, or about none.
    job: Option<i64>,
    host: String,
    detail: String,
}

const COLUMNS: [Column; 5] = [
    Column::plain("what"),
    Column::plain("target"),
    Column::plain("job"),
    Column::plain("host"),
    Column::rest("detail"),
];

/// What was found, in the order of hosts and targets.
pub(crate) fn table(mut findings: Vec<Finding>) -> Table {
    findings.sort_by(|a, b| {
        (&a.host, &a.target, a.what, a.job).cmp(&(&b.host, &b.target, b.what, b.job))
    });
    let mut table = Table::new(&COLUMNS);
    for Finding { what, target, job, host, detail } in findings {
        table.add(vec![json!(what), json!(target), json!(job), json!(host), json!(detail)]);
    }
    table
}

/// Holds the rows against each other, of one host or of all.
pub(crate) fn rows(store: &mut dyn Store, host: Option<&Host>) -> Result<Vec<Finding>> {
    let host = host.map(Host::to_string);
    let filter = bindings::Filter { host: host.clone(), ..bindings::Filter::default() };
    let in_use = bindings::Filter { active_only: true, ..filter.clone() };
    let users = bindings::find(store, &in_use)?;
    let mut findings = Vec::new();
    one_target_a_path(&users, &mut findings);
    one_mount_a_target(&users, &mut findings);
    for binding in bindings::find_deleted_in_use(store, &filter)? {
        findings.push(about(&binding, "deleted-in-use", "mounted, and deleted: it does not count"));
    }
    for user in &users {
        // A row of the Python client has no operation.
        if user.path.is_some() && journal::last_mount(store, user)?.is_none() {
            findings.push(about(user, "no-operation", "no successful mount is in the journal"));
        }
    }
    let open = journal::Filter {
        host,
        status: Some("unsettled".to_owned()),
        ..journal::Filter::default()
    };
    findings.extend(journal::find(store, &open)?.iter().map(|operation| Finding {
        what: "unsettled",
        target: operation.target.clone(),
        job: operation.has_job().then_some(operation.job),
        host: operation.host.clone(),
        detail: format!("nobody knows how {} {} went", operation.action, operation.id),
    }));
    Ok(findings)
}

fn one_target_a_path(users: &[Binding], findings: &mut Vec<Finding>) {
    let mut at: BTreeMap<(&str, &str), &Binding> = BTreeMap::new();
    for user in users {
        let Some(path) = &user.path else { continue };
        let first = *at.entry((&user.host, path)).or_insert(user);
        if first.target != user.target {
            let detail = format!("{path} is in use by target {}, too", first.target);
            findings.push(about(user, "path-shared", &detail));
        }
    }
}

fn one_mount_a_target(users: &[Binding], findings: &mut Vec<Finding>) {
    let mut of: BTreeMap<(&str, &str), &Binding> = BTreeMap::new();
    for user in users.iter().filter(|user| user.path.is_some()) {
        let first = *of.entry((&user.host, &user.target)).or_insert(user);
        for (what, mine, other) in [
            ("paths-differ", &user.path, &first.path),
            ("types-differ", &user.kind, &first.kind),
            ("sources-differ", &user.source, &first.source),
        ] {
            if let (Some(mine), Some(other)) = (mine, other)
                && mine != other
            {
                let detail = format!("{mine}, and {other} for job {}", first.job);
                findings.push(about(user, what, &detail));
            }
        }
    }
}

fn about(binding: &Binding, what: &'static str, detail: &str) -> Finding {
    Finding {
        what,
        target: binding.target.clone(),
        job: Some(binding.job),
        host: binding.host.clone(),
        detail: detail.to_owned(),
    }
}

/// Holds the rows of a node against what is mounted there. A target that is being worked on is left
/// out.
pub(crate) fn mounts(store: &mut dyn Store, survey: &Survey) -> Result<Vec<Finding>> {
    let host = Some(survey.host.to_string());
    let in_use =
        bindings::Filter { host: host.clone(), active_only: true, ..bindings::Filter::default() };
    let users = bindings::find(store, &in_use)?;
    let pending = journal::Filter { host, pending_only: true, ..journal::Filter::default() };
    let pending = journal::find(store, &pending)?;
    let is_pending = |target: &str| pending.iter().any(|op: &Operation| op.target == target);
    let mut findings = Vec::new();
    for user in users.iter().filter(|user| !is_pending(&user.target)) {
        findings.extend(of_user(user, survey));
    }
    for mounted in &survey.mounts {
        let Some(target) = mounted.target.as_deref().filter(|target| !is_pending(target)) else {
            continue;
        };
        if !users.iter().any(|user| user.target == target) {
            findings.push(Finding {
                what: "unused",
                target: target.to_owned(),
                job: None,
                host: survey.host.to_string(),
                detail: format!("mounted at {}, and no job uses it", mounted.path),
            });
        }
    }
    Ok(findings)
}

/// What a job that uses a target would find there.
fn of_user(user: &Binding, survey: &Survey) -> Option<Finding> {
    if user.boot.as_ref().is_some_and(|then| *then != survey.boot) {
        return Some(about(user, "earlier-boot", "mounted before the node was booted last"));
    }
    let here = user.path.as_deref().and_then(|path| survey.at(path));
    let other = here.filter(|mounted| mounted.target.as_deref() != Some(user.target.as_str()));
    if let Some(Mounted { path, source, .. }) = other {
        return Some(about(user, "foreign", &format!("{source} is mounted at {path}")));
    }
    let Some(mounted) = survey.of(&user.target) else {
        let path = user.path.as_deref().unwrap_or("its path");
        return Some(about(user, "not-mounted", &format!("nothing is mounted at {path}")));
    };
    if let Some(path) = user.path.as_ref().filter(|path| **path != mounted.path) {
        let detail = format!("mounted at {}, not at {path}", mounted.path);
        return Some(about(user, "elsewhere", &detail));
    }
    if !mounted.is_served() {
        let detail = format!("the mount at {} has no daemon that is known", mounted.path);
        return Some(about(user, "no-daemon", &detail));
    }
    match (&user.source, mounted.remembered()) {
        (Some(mine), Some(theirs)) if mine != theirs => {
            Some(about(user, "other-source", &format!("mounted from {theirs}, not from {mine}")))
        }
        _ => None,
    }
}
