//! `dms-ledger metrics` and `dms-mount metrics`: ledger and daemons in numbers, as Prometheus reads them.

use std::collections::BTreeMap;

use dms_tests::{Lab, Run, eventually};
use nix::sys::signal::Signal;

/// The samples by name and labels; the text is checked on the way.
fn read(run: &Run) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = "";
    for line in run.expect(0).stdout.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().expect("a name");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(name == family && ["gauge", "counter", "summary"].contains(&kind), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let bare = name.split('{').next().expect("a name");
        let bare = bare.trim_end_matches("_sum").trim_end_matches("_count");
        assert_eq!(bare, family, "a sample outside its family: {line}");
        let value = value.parse().unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

fn metrics(lab: &Lab) -> BTreeMap<String, f64> {
    read(&lab.feed("dms-ledger", &["metrics"], ""))
}

#[test]
fn what_was_done_is_counted_and_stays_counted_when_the_journal_is_shortened() {
    let lab = Lab::new();
    for job in [1, 2, 3] {
        lab.mount(job, "t1");
    }
    lab.unmount(1, "t1");
    lab.mount(4, "t2");
    let refused = lab.send(&lab.request("unmount", 9, "t1"));
    assert_eq!(refused["error_code"], "no_active_mount");
    let node = lab.node.clone();
    let of = |samples: &BTreeMap<String, f64>, name: &str| {
        samples.get(&name.replace("NODE", &node)).copied()
    };
    let before = metrics(&lab);
    for (name, want) in [
        ("dms_active_mounts{host=\"NODE\",target=\"t1\"}", 2.0),
        ("dms_active_mounts{host=\"NODE\",target=\"t2\"}", 1.0),
        (
            "dms_operations_total{host=\"NODE\",action=\"mount\",status=\"success\",error_code=\"\"}",
            4.0,
        ),
        (
            "dms_operations_total{host=\"NODE\",action=\"unmount\",status=\"error\",\
             error_code=\"no_active_mount\"}",
            1.0,
        ),
        ("dms_unmounts_skipped_total{host=\"NODE\"}", 1.0),
        ("dms_operation_seconds_count{host=\"NODE\",decision=\"mount\"}", 4.0),
        ("dms_lock_wait_seconds_count{host=\"NODE\",action=\"unmount\"}", 2.0),
    ] {
        assert_eq!(of(&before, name), Some(want), "{name} in {before:#?}");
    }
    // As if job 2 had mounted two hours ago.
    let ago = lab.ago(7200);
    lab.sql(&format!("UPDATE backup_target_mount_ledger SET updated_at = {ago} WHERE jobid = 2"));
    let oldest = of(&metrics(&lab), "dms_oldest_binding_seconds{host=\"NODE\",target=\"t1\"}");
    assert!(oldest.is_some_and(|age| (7200.0..7260.0).contains(&age)), "{oldest:?}");
    let took = of(&before, "dms_operation_seconds_sum{host=\"NODE\",decision=\"mount\"}");
    assert!(took.is_some_and(|seconds| seconds > 0.01), "two real mounts took {took:?} s");

    lab.sql("UPDATE backup_target_mount_operations SET created_at = '2026-01-01 00:00:00'");
    lab.feed("dms-ledger", &["cleanup", "--journal-days", "1"], "").expect(0);
    let left = lab.sql("SELECT COUNT(*) FROM backup_target_mount_operations");
    assert_eq!(left.trim(), "3", "those of the active bindings");
    let but_ages = |mut samples: BTreeMap<String, f64>| {
        samples.retain(|name, _| !name.starts_with("dms_oldest_binding_seconds"));
        samples
    };
    assert_eq!(but_ages(metrics(&lab)), but_ages(before));
    lab.unmount(2, "t1");
    let skipped = of(&metrics(&lab), "dms_unmounts_skipped_total{host=\"NODE\"}");
    assert_eq!(skipped, Some(2.0));
}

#[test]
fn who_waited_in_vain_is_in_the_journal_and_in_the_numbers_and_may_try_again() {
    let lab = Lab::new();
    // A plan that nobody carries on, of a run that goes on.
    let mut holder = lab.command("dms-lock", &["held", "--", "sh", "-c"]);
    holder.arg(
        "dms-ledger mount --job-id 1 --target-id t1 --target-type s3 \
         --secret-ref file://$DMS_SECRET_DIR/good > plan; echo held; read x",
    );
    let holder = dms_tests::Held::start(holder.current_dir(lab.path("")));
    let mut request = lab.request("mount", 2, "t1");
    request["request_id"] = "again".into();
    let line = format!("{request}\n");
    let mut pipeline = lab.pipeline_command();
    let answer = dms_tests::run(pipeline.env("DMS_REQUEST_TIMEOUT", "1"), line.as_bytes()).line();
    assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
    let last = &lab.history("t1")[0];
    assert_eq!(
        (last["operation"].as_str(), last["status"].as_str()),
        (Some("again"), Some("error"))
    );
    let samples = metrics(&lab);
    let host = format!("{{host=\"{}\"", lab.node);
    assert_eq!(samples.get(&format!("dms_lock_timeouts_total{host}}}")), Some(&1.0));
    let waited = samples.get(&format!("dms_lock_wait_seconds_sum{host},action=\"mount\"}}"));
    assert!(waited.is_some_and(|seconds| *seconds >= 0.9), "{samples:#?}");
    holder.release();
    // Nothing was done, so the same request may come again.
    let answer = lab.send(&request);
    assert_eq!(answer["status"], "success", "{answer}");
    lab.unmount(2, "t1");
}

#[test]
fn what_daemons_cost_is_told_by_target_and_a_dead_one_is_missed() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.mount(2, "t2");
    let numbers = || read(&lab.feed("dms-mount", &["metrics"], ""));
    let of = |samples: &BTreeMap<String, f64>, name: &str| {
        samples.get(&name.replace("NODE", &lab.node)).copied()
    };
    let before = numbers();
    for (name, want) in [
        ("dms_targets_mounted{host=\"NODE\"}", 2.0),
        ("dms_daemons_tracked{host=\"NODE\"}", 2.0),
        ("dms_daemons_alive{host=\"NODE\"}", 2.0),
    ] {
        assert_eq!(of(&before, name), Some(want), "{name} in {before:#?}");
    }
    let memory = of(&before, "dms_daemon_resident_bytes{host=\"NODE\",target=\"t1\"}");
    assert!(memory.is_some_and(|bytes| bytes > 1e6), "{before:#?}");
    assert!(of(&before, "dms_daemon_cpu_seconds_total{host=\"NODE\",target=\"t2\"}").is_some());
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("t1").is_empty());
    let after = numbers();
    assert_eq!(of(&after, "dms_daemons_tracked{host=\"NODE\"}"), Some(2.0));
    assert_eq!(of(&after, "dms_daemons_alive{host=\"NODE\"}"), Some(1.0));
    assert_eq!(of(&after, "dms_daemon_resident_bytes{host=\"NODE\",target=\"t1\"}"), None);
}
