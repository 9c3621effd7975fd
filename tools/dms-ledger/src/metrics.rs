//! `metrics`: the ledger in numbers, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::bindings;
use crate::store::{Result, Store};
use crate::totals::{self, Kind, Total};

/// A metric and its samples.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// What stands between name and value, and the value.
    samples: Vec<(String, String)>,
}

/// All of it.
pub(crate) fn text(store: &mut dyn Store, ledger: &str) -> Result<String> {
    let totals = totals::read(store)?;
    let mut info = Family::new("dms_ledger_info", "gauge", "The ledger; always 1.");
    info.add("", &[("ledger", ledger), ("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut families = vec![info, active(store)?];
    families.extend(counted(&totals));
    families.extend(timed(&totals));
    Ok(families.iter().map(Family::text).collect())
}

fn active(store: &mut dyn Store) -> Result<Family> {
    let help = "Jobs that use a target on a host.";
    let mut family = Family::new("dms_active_mounts", "gauge", help);
    for row in bindings::count_users(store)? {
        let (host, target) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
        let users = row.int(2).unwrap_or_default();
        family.add("", &[("host", &host), ("target", &target)], users);
    }
    Ok(family)
}

/// How many operations came to what.
fn counted(totals: &totals::Totals) -> [Family; 4] {
    let mut done = Family::new(
        "dms_operations_total",
        "counter",
        "Operations that have ended, by action, status and error code.",
    );
    let mut open = Family::new(
        "dms_operations_open",
        "gauge",
        "Operations that are pending, or whose outcome is unknown.",
    );
    let mut skipped = Family::new(
        "dms_unmounts_skipped_total",
        "counter",
        "Jobs that left a target that others use: nothing was unmounted.",
    );
    let mut timeouts = Family::new(
        "dms_lock_timeouts_total",
        "counter",
        "Operations that others were in the way of for too long.",
    );
    let (mut of_done, mut of_open) = (BTreeMap::new(), BTreeMap::new());
    let (mut of_skipped, mut of_timeouts) = (BTreeMap::new(), BTreeMap::new());
    for (kind, total) in totals {
        let Kind { host, action, decision, status, error_code } = kind;
        let count = total.operations;
        if status == "pending" || status == "unsettled" {
            *of_open.entry([("host", host), ("status", status)]).or_insert(0) += count;
            continue;
        }
        let labels =
            [("host", host), ("action", action), ("status", status), ("error_code", error_code)];
        *of_done.entry(labels).or_insert(0) += count;
        if decision == "release" && status == "success" {
            *of_skipped.entry([("host", host)]).or_insert(0) += count;
        }
        if error_code == "lock_timeout" {
            *of_timeouts.entry([("host", host)]).or_insert(0) += count;
        }
    }
    done.add_all(of_done);
    open.add_all(of_open);
    skipped.add_all(of_skipped);
    timeouts.add_all(of_timeouts);
    [done, open, skipped, timeouts]
}

/// How long they took, and how long they waited before.
fn timed(totals: &totals::Totals) -> [Family; 2] {
    let mut took = Family::new(
        "dms_operation_seconds",
        "summary",
        "From plan to record, of operations that succeeded, by what was done.",
    );
    let mut waited = Family::new(
        "dms_lock_wait_seconds",
        "summary",
        "How long operations waited for others on the same target and host.",
    );
    let mut of_took: BTreeMap<[(&str, &String); 2], Total> = BTreeMap::new();
    let mut of_waited: BTreeMap<[(&str, &String); 2], Total> = BTreeMap::new();
    for (kind, total) in totals.iter().filter(|(kind, _)| kind.status != "pending") {
        let by_action = [("host", &kind.host), ("action", &kind.action)];
        of_waited.entry(by_action).or_default().add(*total);
        if kind.status == "success" {
            let by_decision = [("host", &kind.host), ("decision", &kind.decision)];
            of_took.entry(by_decision).or_default().add(*total);
        }
    }
    for (labels, total) in of_took {
        took.add_summary(&labels, total.operations, total.took);
    }
    for (labels, total) in of_waited {
        waited.add_summary(&labels, total.operations, total.waited);
    }
    [took, waited]
}

impl Family {
    fn new(name: &'static str, kind: &'static str, help: &'static str) -> Family {
        Family { name, kind, help, samples: Vec::new() }
    }

    fn add(&mut self, suffix: &str, labels: &[(&str, impl AsRef<str>)], value: i64) {
        self.samples.push((format!("{suffix}{}", written(labels)), value.to_string()));
    }

    fn add_all<const N: usize>(&mut self, counts: BTreeMap<[(&str, &String); N], i64>) {
        for (labels, count) in counts {
            self.add("", &labels, count);
        }
    }

    fn add_summary(&mut self, labels: &[(&str, &String)], count: i64, millis: i64) {
        let seconds = format!("{}.{:03}", millis / 1000, millis.rem_euclid(1000));
        self.samples.push((format!("_sum{}", written(labels)), seconds));
        self.add("_count", labels, count);
    }

    fn text(&self) -> String {
        let Family { name, kind, help, samples } = self;
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (behind_name, value) in samples {
            // A string takes all.
            let _ = writeln!(text, "{name}{behind_name} {value}");
        }
        text
    }
}

/// `{name="value",...}`, with the escapes of the format.
fn written(labels: &[(&str, impl AsRef<str>)]) -> String {
    let escaped =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = (labels.iter())
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value.as_ref())))
        .collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_seconds_are_decimal() {
        let mut family = Family::new("x", "summary", "What it is.");
        family.add_summary(&[("target", &"a\"b\\c\n".to_owned())], 2, 1005);
        let want = "# HELP x What it is.\n# TYPE x summary\n\
                    x_sum{target=\"a\\\"b\\\\c\\n\"} 1.005\nx_count{target=\"a\\\"b\\\\c\\n\"} 2\n";
        assert_eq!(family.text(), want);
    }
}
