//! What locks are for: two processes that look at a pool and then act on what they saw, with and
//! without a lock; and targets that have nothing to do with each other.
//!
//! The pool is a directory: it is imported by making it, which fails if somebody has, and exported by
//! removing it. Each process stops where the other one has to come in between.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use dms_tests::{Filter, Lab, eventually, run, waits_for_lock};
use serde_json::json;

/// Starts a script in the lab, under the pool's lock or without.
fn start(lab: &Lab, locked: bool, script: &str) -> Child {
    let mut command = match locked {
        true => lab.command("dms-lock", &["-w", "60", "pool.pA", "--", "sh", "-ec", script]),
        false => lab.command("sh", &["-ec", script]),
    };
    command.current_dir(lab.path("")).stderr(Stdio::null()).spawn().expect("sh is there")
}

/// A fresh pool, not imported, and two pipes that say go.
fn fresh(lab: &Lab) {
    let script = "rm -rf pA a-* b-*; mkfifo a-go b-go";
    run(lab.command("sh", &["-c", script]).current_dir(lab.path("")), b"").expect(0);
}

fn go(path: &Path) {
    fs::write(path, "\n").expect("it reads");
}

/// List; import if it is not there, which A does after a word.
const IMPORT_A: &str = "[ -d pA ] && seen=1 || seen=; echo >a-listed; read x <a-go
    [ $seen ] || mkdir pA; echo >a-imported";
const IMPORT_B: &str = "[ -d pA ] || { mkdir pA; echo >b-imported; }";

#[test]
fn scenario_1_both_find_the_pool_absent_and_both_import_it() {
    let lab = Lab::new();
    for locked in [false, true] {
        fresh(&lab);
        let mut a = start(&lab, locked, IMPORT_A);
        eventually("A has listed", || lab.path("a-listed").exists());
        let mut b = start(&lab, locked, IMPORT_B);
        if locked {
            eventually("B waits for the lock", || waits_for_lock(b.id()));
        } else {
            eventually("B has imported it", || lab.path("b-imported").exists());
        }
        go(&lab.path("a-go"));
        // Without the lock, A finds imported what it found absent.
        assert_eq!(a.wait().expect("it is ours").success(), locked, "locked: {locked}");
        assert!(b.wait().is_ok_and(|end| end.success()));
        assert_eq!(lab.path("b-imported").exists(), !locked, "B looked after A had imported it");
        assert!(lab.path("pA").exists());
    }
}

/// Import, scan, which takes a while, and export.
const SCAN_B: &str = "mkdir pA; echo >b-imported; read x <b-go; rmdir pA";
/// List; import if it is not there; create a dataset, after a word.
const DATASET_A: &str = "[ -d pA ] || { mkdir pA; echo >a-imported; }; echo >a-listed
    read x <a-go; mkdir pA/dataset";

#[test]
fn scenario_2_the_pool_is_exported_under_one_who_found_it_imported() {
    let lab = Lab::new();
    for locked in [false, true] {
        fresh(&lab);
        let mut b = start(&lab, locked, SCAN_B);
        eventually("B has imported it", || lab.path("b-imported").exists());
        let mut a = start(&lab, locked, DATASET_A);
        if locked {
            eventually("A waits for the lock", || waits_for_lock(a.id()));
        } else {
            eventually("A has listed", || lab.path("a-listed").exists());
        }
        go(&lab.path("b-go"));
        assert!(b.wait().is_ok_and(|end| end.success()));
        go(&lab.path("a-go"));
        // Without the lock, A creates a dataset in a pool that is gone.
        assert_eq!(a.wait().expect("it is ours").success(), locked, "locked: {locked}");
        assert_eq!(lab.path("a-imported").exists(), locked, "A looked after B had exported it");
        assert_eq!(lab.path("pA/dataset").exists(), locked);
    }
}

/// A filter that hangs with one target, until it is told, and notes which it has done.
const FILTER: &str = r#"while read -r line; do
    case $line in *slow*) echo >slow-begun; read x <slow-go;; esac
    echo "$line" >>done; echo "$line"
done"#;

#[test]
fn a_target_that_hangs_delays_its_own_requests_only() {
    let lab = Lab::new();
    run(lab.command("mkfifo", &["slow-go"]).current_dir(lab.path("")), b"").expect(0);
    let start = || {
        let mut command = lab.command("dms-lock", &["--each", "--", "sh", "-c", FILTER]);
        Filter::start(command.current_dir(lab.path("")))
    };
    let request = |id: &str, number: i32| json!({"n": number, "backup_target": {"id": id}});
    let (mut first, mut second, mut other) = (start(), start(), start());
    first.tell(&request("slow", 1));
    eventually("it hangs", || lab.path("slow-begun").exists());
    second.tell(&request("slow", 2));
    eventually("the same target waits", || waits_for_lock(second.pid().cast_unsigned()));
    // Any number of others go on meanwhile.
    for number in 0..20 {
        assert_eq!(other.ask(&request(&format!("t{}", number % 3), number))["n"], number);
    }
    // And the node is not free for maintenance.
    lab.feed("dms-lock", &["-n", "node", "--", "true"], "").expect(1);
    fs::remove_file(lab.path("done")).expect("some were done");
    for filter in [&mut first, &mut second] {
        go(&lab.path("slow-go"));
        filter.answer();
    }
    let done = fs::read_to_string(lab.path("done")).expect("both were done");
    let numbers: Vec<_> = done
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line")["n"].clone())
        .collect();
    assert_eq!(numbers, [1, 2]);
    for filter in [first, second, other] {
        filter.end();
    }
}
