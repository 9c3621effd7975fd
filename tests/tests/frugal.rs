//! What a request costs, in things that can be counted and do not depend on what else the machine does:
//! round trips to the ledger's server, waits for the disk, programs that are started, readings of the
//! list of mounts; and in what is done while another waits. So a step back is seen without measuring any time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use dms_tests::{Database, Lab, bin_dir, run};

/// What one test mounts, the tools of another would look at.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Pairs of a mount and an unmount, by a job that finds the target mounted and leaves it so.
const PAIRS: usize = 6;

/// How often each of these was done, in the whole of a run.
type Counts = BTreeMap<&'static str, usize>;

/// Sends these through a pipeline of their own, under strace.
#[track_caller]
fn count(lab: &Lab, actions: &[&str]) -> Counts {
    let log = lab.fresh_path("strace");
    let calls = "fsync,fdatasync,sendto,execve,openat";
    let script = format!(
        "strace -f -s 40 -e trace={calls} -o {} \
         dms-lock --each -- sh -c 'dms-ledger plan | dms-mount | dms-ledger commit'",
        log.display()
    );
    let lines: String =
        actions.iter().map(|action| lab.request(action, 2, "t1").to_string() + "\n").collect();
    let said = run(&mut lab.command("sh", &["-c", &script]), lines.as_bytes());
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
            Some(call) if call.contains("/fence/.t1\"") => "files of fences",
            _ => continue,
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

/// What `PAIRS` pairs cost beyond the start of the pipeline and its first two: a statement is prepared
/// when it is sent for the second time.
#[track_caller]
fn cost(lab: &Lab) -> Counts {
    lab.mount(1, "t1");
    // From now on the job has its row.
    lab.mount(2, "t1");
    lab.unmount(2, "t1");
    let pair = ["mount", "unmount"];
    let few = count(lab, &pair.repeat(2));
    let many = count(lab, &pair.repeat(2 + PAIRS));
    let count = |counts: &Counts, what| counts.get(what).copied().unwrap_or(0);
    let more = |what| count(&many, what).saturating_sub(count(&few, what));
    let all = ["syncs", "round trips", "programs", "lists of mounts", "files of fences"];
    all.map(|what| (what, more(what))).into()
}

/// Nothing is mounted and nobody is new: nothing is started, and the kernel's list is as it was.
#[track_caller]
fn assert_nothing_is_started(cost: &Counts) {
    assert_eq!((cost["programs"], cost["lists of mounts"]), (0, 0), "{cost:?}");
    // The number of a fence is written over the last one, unless it has a digit more.
    assert!(cost["files of fences"] <= 1, "{cost:?}");
}

#[test]
fn a_request_waits_for_the_disk_twice() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::on_sqlite();
    let cost = cost(&lab);
    // The plan, the outcome. Now and then the log is written back.
    let syncs = 2 * 2 * PAIRS;
    assert!((syncs..=syncs + 4).contains(&cost["syncs"]), "{cost:?}");
    assert_nothing_is_started(&cost);
    lab.unmount(1, "t1");
}

#[test]
fn a_mount_takes_four_round_trips_to_the_server_and_so_does_an_unmount() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::on_mariadb(Database::shared());
    let cost = cost(&lab);
    // Once a second, it looks for operations of runs that have ended.
    let trips = (4 + 4) * PAIRS;
    assert!((trips..=trips + 6).contains(&cost["round trips"]), "{cost:?}");
    assert_nothing_is_started(&cost);
    lab.unmount(1, "t1");
}

#[test]
fn what_is_sent_once_takes_one_round_trip() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::on_mariadb(Database::shared());
    lab.mount(1, "t1");
    lab.mount(2, "t1");
    lab.unmount(2, "t1");
    for (action, trips) in [("mount", 4), ("unmount", 4)] {
        let one = count(&lab, &[action]);
        // For each connection, of `plan` and of `commit`: two to get in, one about the session, one about
        // the ledger, one to take leave. And a look for operations of runs that have ended.
        let trips = trips + 2 * 5 + 1;
        assert_eq!(one["round trips"], trips, "{one:?}");
    }
    lab.unmount(1, "t1");
}

#[test]
fn what_a_mount_is_asked_for_first_is_whether_it_lives() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::on_sqlite();
    lab.mount(1, "t1");
    let log = lab.fresh_path("strace").display().to_string();
    let strace = ["-f", "-s", "40", "-e", "trace=write,openat", "-o", &log, "dms-mount"];
    let line = lab.request("mount", 2, "t1").to_string() + "\n";
    run(&mut lab.command("strace", &strace), line.as_bytes()).expect(0);
    let text = fs::read_to_string(&log).expect("strace has written it");
    let position = |what: &str| text.lines().position(|line| line.contains(what));
    let asked = position("{\\\"mount\\\":{\\\"path\\\"").expect("it is asked");
    let read = position("/run/mounts/t1\"").expect("its record is read");
    assert!(asked < read, "the answer is waited for, while the record could be read: {text}");
    lab.unmount(1, "t1");
}

#[test]
fn what_is_started_often_loads_neither_openssl_nor_the_unwinder() {
    for tool in ["dms-lock", "dms-ledger", "dms-mount", "dms-with"] {
        let mut objdump = std::process::Command::new("objdump");
        let loads = run(objdump.arg("-p").arg(bin_dir().join(tool)), b"");
        let loads = &loads.expect(0).stdout;
        assert!(loads.contains("NEEDED") && loads.contains("libc.so"), "{tool}: {loads}");
        for library in ["libssl", "libcrypto", "libgcc_s"] {
            assert!(!loads.contains(library), "{tool} loads {library}");
        }
    }
}
