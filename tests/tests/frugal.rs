//! What a request costs, in things that can be counted and do not depend on what else the machine does:
//! round trips to the ledger's server, waits for the disk, programs that are started, readings of the
//! list of mounts. So a step back is seen without measuring any time.

use std::collections::BTreeMap;
use std::fs;

use dms_tests::{Database, Lab, run};

/// Pairs of a mount and an unmount, by a job that finds the target mounted and leaves it so.
const PAIRS: usize = 6;

/// How often each of these was done, in the whole of a run.
type Counts = BTreeMap<&'static str, usize>;

/// Sends so many pairs through a pipeline of their own, under strace.
#[track_caller]
fn count(lab: &Lab, pairs: usize) -> Counts {
    let log = lab.fresh_path("strace");
    let calls = "fsync,fdatasync,sendto,execve,openat";
    let script = format!(
        "strace -f -s 40 -e trace={calls} -o {} \
         dms-lock --each -- sh -c 'dms-ledger plan | dms-mount | dms-ledger commit'",
        log.display()
    );
    let pair = ["mount", "unmount"].map(|action| lab.request(action, 2, "t1").to_string() + "\n");
    let said =
        run(&mut lab.command("sh", &["-c", &script]), pair.concat().repeat(pairs).as_bytes());
    let answers = said.expect(0).lines();
    assert!(answers.iter().all(|answer| answer["status"] == "success"), "{said}");
    let text = fs::read_to_string(&log).expect("strace has written it");
    let mut counts = Counts::new();
    for line in text.lines() {
        let what = match line.split_once(' ').map(|(_, call)| call.trim_start()) {
            Some(call) if call.starts_with("fsync(") || call.starts_with("fdatasync(") => "syncs",
            Some(call) if call.starts_with("sendto(") => "round trips",
            Some(call) if call.starts_with("execve(") => "programs",
            Some(call) if call.contains("/mountinfo\"") => "lists of mounts",
            _ => continue,
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

/// What `PAIRS` pairs cost beyond the start of the pipeline and its first pair, which finds nothing
/// prepared.
#[track_caller]
fn cost(lab: &Lab) -> Counts {
    lab.mount(1, "t1");
    // From now on the job has its row.
    lab.mount(2, "t1");
    lab.unmount(2, "t1");
    let few = count(lab, 1);
    let many = count(lab, 1 + PAIRS);
    let count = |counts: &Counts, what| counts.get(what).copied().unwrap_or(0);
    let more = |what| count(&many, what).saturating_sub(count(&few, what));
    ["syncs", "round trips", "programs", "lists of mounts"].map(|what| (what, more(what))).into()
}

/// Nothing is mounted and nobody is new: nothing is started, and the kernel's list is as it was.
#[track_caller]
fn assert_nothing_is_started(cost: &Counts) {
    assert_eq!((cost["programs"], cost["lists of mounts"]), (0, 0), "{cost:?}");
}

#[test]
fn a_request_waits_for_the_disk_three_times() {
    let lab = Lab::on_sqlite();
    let cost = cost(&lab);
    // The pending row, the plan, the outcome. Now and then the log is written back.
    let syncs = 2 * 3 * PAIRS;
    assert!((syncs..=syncs + 4).contains(&cost["syncs"]), "{cost:?}");
    assert_nothing_is_started(&cost);
    lab.unmount(1, "t1");
}

#[test]
fn a_mount_takes_twelve_round_trips_to_the_server_and_an_unmount_eleven() {
    let lab = Lab::on_mariadb(Database::shared());
    let cost = cost(&lab);
    // Once a second, it looks for operations of runs that have ended.
    let trips = (12 + 11) * PAIRS;
    assert!((trips..=trips + 6).contains(&cost["round trips"]), "{cost:?}");
    assert_nothing_is_started(&cost);
    lab.unmount(1, "t1");
}
