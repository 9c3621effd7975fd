//! `reconcile` and `audit`: what a crash, a reboot or an operator left behind is found, and the
//! pipeline puts it right.

mod boots;
mod mounts;
mod requests;

use std::fs;

use dms_tests::{Lab, Run, eventually};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;

/// What an operator runs, or a unit at boot.
const RECONCILE: &str = "dms-mount list | dms-ledger reconcile |
    dms-lock --each -- sh -c 'dms-ledger plan | dms-mount | dms-ledger commit'";

/// The requests that it makes, and how it ends.
fn requests(lab: &Lab, args: &str) -> Run {
    lab.shell(&format!("dms-mount list > list && dms-ledger reconcile {args} < list"))
}

fn audit(lab: &Lab) -> Vec<(String, Value)> {
    let run = lab.shell("dms-mount list | dms-ledger audit --json");
    let found: Vec<(String, Value)> = (run.lines().iter())
        .map(|row| (row["what"].as_str().unwrap_or_default().to_owned(), row["job"].clone()))
        .collect();
    assert_eq!(run.code, i32::from(!found.is_empty()), "{run}");
    found
}

/// The mount, its daemon and the run directory are gone, and the rows are of another boot.
fn reboot(lab: &Lab, target: &str) {
    umount2(&lab.mount_point(target), MntFlags::empty()).expect("nobody uses it");
    eventually("the daemon ends", || lab.daemons(target).is_empty());
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    lab.sql("UPDATE backup_target_mount_ledger SET boot = 'the-boot-before'");
}
