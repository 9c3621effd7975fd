//! `metrics`: the ledger in numbers, in Prometheus' text format.

use std::collections::BTreeMap;

use dms_cli::{Family, Label, since_1970};

use crate::bindings;
use crate::store::{Result, Store};
use crate::totals::{self, Kind, Total, Totals};

/// All of it.
pub(crate) fn text(store: &mut dyn Store, ledger: &str) -> Result<String> {
    let totals = totals::read(store)?;
    let mut info = Family::new("dms_ledger_info", "gauge", "The ledger; always 1.");
    info.add("", &[("ledger", ledger), ("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut families = vec![info];
    families.extend(active(store)?);
    families.extend(counted(&totals));
    families.extend(timed(&totals));
    Ok(families.iter().map(Family::text).collect())
}

/// How many use what, and for how long.
fn active(store: &mut dyn Store) -> Result<[Family; 2]> {
    let help = "Jobs that use a target on a host.";
    let mut users = Family::new("dms_active_mounts", "gauge", help);
    let help = "How long ago the job mounted that has used a target on a host for longest.";
    let mut oldest = Family::new("dms_oldest_binding_seconds", "gauge", help);
    let now = store.now()?.text;
    for row in bindings::count_users(store)? {
        let (host, target) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
        let labels = [("host", &*host), ("target", &*target)];
        users.add("", &labels, row.int(2).unwrap_or_default());
        let since = row.text(3).and_then(|since| since_1970(&since));
        if let (Some(now), Some(since)) = (since_1970(&now), since) {
            let seconds = now.saturating_sub(since).as_secs();
            oldest.add("", &labels, i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }
    Ok([users, oldest])
}

/// How many operations came to what.
fn counted(totals: &Totals) -> [Family; 4] {
    let is_open = |kind: &Kind| kind.status == "pending" || kind.status == "unsettled";
    let mut done = Family::new(
        "dms_operations_total",
        "counter",
        "Operations that have ended, by action, status and error code.",
    );
    count(&mut done, totals, &["host", "action", "status", "error_code"], |kind| !is_open(kind));
    let mut open = Family::new(
        "dms_operations_open",
        "gauge",
        "Operations that are pending, or whose outcome is unknown.",
    );
    count(&mut open, totals, &["host", "status"], is_open);
    let mut skipped = Family::new(
        "dms_unmounts_skipped_total",
        "counter",
        "Jobs that left a target that others use: nothing was unmounted.",
    );
    count(&mut skipped, totals, &["host"], |kind| {
        kind.decision == "release" && kind.status == "success"
    });
    let mut timeouts = Family::new(
        "dms_lock_timeouts_total",
        "counter",
        "Operations that waited for locks, or for others, in vain.",
    );
    count(&mut timeouts, totals, &["host"], |kind| kind.error_code == "lock_timeout");
    [done, open, skipped, timeouts]
}

/// How long they took, and how long they waited before.
fn timed(totals: &Totals) -> [Family; 2] {
    let mut took = Family::new(
        "dms_operation_seconds",
        "summary",
        "From plan to record, of operations that succeeded, by what was done.",
    );
    for (labels, total) in sum(totals, &["host", "decision"], |kind| kind.status == "success") {
        took.add_summary(&labels, total.operations, total.took);
    }
    let mut waited = Family::new(
        "dms_lock_wait_seconds",
        "summary",
        "How long operations waited for locks, and for others on the same target and host.",
    );
    for (labels, total) in sum(totals, &["host", "action"], |kind| kind.status != "pending") {
        waited.add_summary(&labels, total.operations, total.waited);
    }
    [took, waited]
}

/// The operations of such kinds, told apart by these labels only.
fn count(
    family: &mut Family,
    totals: &Totals,
    labels: &[&'static str],
    is_meant: impl Fn(&Kind) -> bool,
) {
    for (labels, total) in sum(totals, labels, is_meant) {
        family.add("", &labels, total.operations);
    }
}

/// What operations of such kinds add up to, told apart by these labels only.
fn sum<'a>(
    totals: &'a Totals,
    labels: &[&'static str],
    is_meant: impl Fn(&Kind) -> bool,
) -> BTreeMap<Vec<Label<'a>>, Total> {
    let mut sums: BTreeMap<Vec<Label<'a>>, Total> = BTreeMap::new();
    for (kind, total) in totals.iter().filter(|(kind, _)| is_meant(kind)) {
        let labels = labels.iter().map(|name| (*name, kind.label(name))).collect();
        sums.entry(labels).or_default().add(*total);
    }
    sums
}

impl Kind {
    fn label(&self, name: &str) -> &str {
        match name {
            "host" => &self.host,
            "action" => &self.action,
            "decision" => &self.decision,
            "status" => &self.status,
            _ => &self.error_code,
        }
    }
}
