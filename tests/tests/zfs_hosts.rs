//! ZFS pools that several hosts can import: one of them at a time writes. Each host has a zfs-fuse of
//! its own, and all see the files that the pools are on.

use std::fs;
use std::sync::Barrier;

use dms_tests::{
    Broker, Filter, Lab, Listener, Run, ZfsHost, eventually, is_long_run, processes_with, run,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_default()
}

fn rounds(long: usize) -> usize {
    if is_long_run() { long } else { 8 }
}

/// A listener with the whole pipeline behind it.
fn listen(lab: &Lab, broker: &Broker, host: &ZfsHost<'_>) -> Listener {
    let mut command = host.command("dms-listen", &["--", "dms-pipeline"]);
    let listener = Listener::spawn(lab, command.env("DMS_RABBITMQ_URL", broker.url()));
    listener.wait_for("serving", 1);
    listener
}

fn call(lab: &Lab, broker: &Broker) -> Filter {
    Filter::start(lab.command("dms-call", &[]).env("DMS_RABBITMQ_URL", broker.url()))
}

fn ledger(lab: &Lab, args: &[&str]) -> Run {
    lab.feed("dms-ledger", args, "")
}

#[test]
fn behind_two_listeners_one_host_at_a_time_imports_to_write() {
    let lab = Lab::new();
    let (a, mut b) = (ZfsHost::start(&lab, "host-a"), ZfsHost::start(&lab, "host-b"));
    a.make_pool("tank");
    let broker = Broker::start();
    let _listeners = [listen(&lab, &broker, &a), listen(&lab, &broker, &b)];
    let mut caller = call(&lab, &broker);
    let mut ask =
        |host: &ZfsHost<'_>, action: &str, job| caller.ask(&host.request(action, job, "tank"));
    assert_eq!(ask(&a, "mount", 1)["status"], "success");
    assert_eq!(ask(&a, "mount", 2)["status"], "success");
    let refused = ask(&b, "mount", 3);
    let words = "pool tank is imported read-write on host-a for job 1, 2";
    assert_eq!((text(&refused, "error_code"), text(&refused, "error_msg")), ("busy", words));
    assert_eq!(b.pools(), [] as [String; 0]);
    assert_eq!(ask(&a, "unmount", 1)["status"], "success");
    assert_eq!(ask(&b, "mount", 3)["error_code"], "busy");
    assert_eq!(ask(&a, "unmount", 2)["unmounted"], true);
    assert_eq!(ask(&b, "mount", 3)["status"], "success");
    assert_eq!((a.pools().len(), b.pools().len()), (0, 1));

    // It dies. Nothing but the operator's word lets others in.
    b.die();
    assert_eq!(ask(&a, "mount", 4)["error_code"], "busy");
    let released = ledger(&lab, &["release", "--target-id", "t", "--host", "host-b"]);
    assert!(released.expect(1).stderr.contains("host-b may write to pool tank"), "{released}");
    ledger(&lab, &["cleanup", "--hours", "0"]).expect(0);
    assert_eq!(ask(&a, "mount", 4)["error_code"], "busy");
    let dead = ledger(&lab, &["release", "--dead", "--host", "host-b", "--json"]);
    assert_eq!(dead.expect(0).line()["job"], 3, "{dead}");
    // ZFS has an opinion of its own: only an explicit option overrules it.
    let refused = ask(&a, "mount", 4);
    assert_eq!(refused["error_code"], "mount", "{refused}");
    assert!(text(&refused, "error_msg").contains("may be in use from other system"), "{refused}");
    assert_eq!(a.pools(), [] as [String; 0]);
    let mut forced = a.request("mount", 4, "tank");
    let options = text(&forced["backup_target"], "zfs_import_opts").to_owned();
    forced["backup_target"]["zfs_import_opts"] = json!(format!("{options},force"));
    let answer = a.send(&forced);
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(ask(&a, "unmount", 4)["unmounted"], true);
}

#[test]
fn of_two_hosts_that_plan_at_the_same_instant_never_both_import() {
    let lab = Lab::new();
    let hosts = [ZfsHost::start(&lab, "host-a"), ZfsHost::start(&lab, "host-b")];
    hosts[0].make_pool("tank");
    let rounds = rounds(100);
    let (ready, decided, looked) = (Barrier::new(2), Barrier::new(2), Barrier::new(2));
    let work = |host: &ZfsHost<'_>, job: i32| {
        let mut filter = Filter::start(&mut host.pipeline());
        let mut won = Vec::new();
        for _ in 0..rounds {
            ready.wait();
            let answer = filter.ask(&host.request("mount", job, "tank"));
            let is_in = answer["status"] == "success";
            assert!(is_in || answer["error_code"] == "busy", "{answer}");
            assert_eq!(host.pools().len(), usize::from(is_in), "{answer}");
            decided.wait();
            won.push(is_in);
            looked.wait();
            if is_in {
                let answer = filter.ask(&host.request("unmount", job, "tank"));
                assert_eq!(answer["unmounted"], true, "{answer}");
            }
        }
        filter.end();
        won
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| work(&hosts[0], 1));
        let second = work(&hosts[1], 2);
        (first.join().expect("it does not panic"), second)
    });
    for (round, (first, second)) in first.iter().zip(&second).enumerate() {
        assert!(first != second, "round {round}: imported by both, or by none");
    }
}

#[test]
fn a_host_whose_last_word_is_not_known_keeps_the_pool_whatever_the_clock_says() {
    let lab = Lab::new();
    let (a, b) = (ZfsHost::start(&lab, "host-a"), ZfsHost::start(&lab, "host-b"));
    a.make_pool("tank");
    // It plans to import, and is not heard of any more.
    let plan = |host: &ZfsHost<'_>, job| {
        let line = format!("{}\n", host.request("mount", job, "tank"));
        run(&mut host.command("dms-ledger", &["plan"]), line.as_bytes()).expect(0).line()
    };
    let ask_within = |seconds: &str, action: &str, job| {
        let mut pipeline = b.pipeline();
        pipeline.env("DMS_REQUEST_TIMEOUT", seconds);
        run(&mut pipeline, format!("{}\n", b.request(action, job, "tank")).as_bytes()).line()
    };
    let ask = |action: &str, job| ask_within("60", action, job);
    assert_eq!(plan(&a, 1)["plan"]["access"], "rw");
    lab.sql("UPDATE backup_target_mount_operations SET lease_until = 1");
    let answer = ask_within("1", "mount", 2);
    assert_eq!(answer["error_code"], "lock_timeout", "{answer}");
    assert!(
        text(&answer, "error_msg").ends_with("of job 1 on pool tank is pending on host-a"),
        "{answer}"
    );
    ledger(&lab, &["release", "--dead", "--host", "host-a"]).expect(0);
    assert_eq!(ask("mount", 2)["status"], "success");
    assert_eq!(ask("unmount", 2)["unmounted"], true);

    // Its outcome is unknown, of a mount and of an unmount.
    for action in ["mount", "unmount"] {
        if action == "unmount" {
            a.done("mount", 1, "tank");
        }
        let mut request = a.request(action, 1, "tank");
        let mut lost = a.command("sh", &["-c", "dms-ledger plan >/dev/null"]);
        run(&mut lost, format!("{request}\n").as_bytes());
        // The lease of an unmount runs out: then nobody knows whether the pool is imported.
        lab.sql("UPDATE backup_target_mount_operations SET lease_until = 1 WHERE pending = 1");
        lab.sql(
            "UPDATE backup_target_mount_operations SET status = 'unsettled', pending = NULL, \
             pending_pool = NULL, pending_path = NULL WHERE pending = 1 AND action = 'mount'",
        );
        let answer = ask("mount", 2);
        assert_eq!(answer["error_code"], "busy", "{action}: {answer}");
        let words = "pool tank may be imported read-write on host-a: the outcome of operation ";
        assert!(text(&answer, "error_msg").starts_with(words), "{action}: {answer}");
        // It is back, and says what is so.
        request["action"] = json!("mount");
        assert_eq!(a.send(&request)["status"], "success");
        a.done("unmount", 1, "tank");
        assert_eq!(ask("mount", 2)["status"], "success");
        assert_eq!(ask("unmount", 2)["unmounted"], true);
    }
}

#[test]
fn with_a_stand_in_a_host_may_read_beside_one_that_writes() {
    let lab = Lab::new();
    let (a, b) = (ZfsHost::stand_in(&lab, "host-a"), ZfsHost::stand_in(&lab, "host-b"));
    a.done("mount", 1, "tank");
    let mut reader = b.request("mount", 2, "tank");
    reader["backup_target"]["zfs_import_opts"] = json!("ro");
    let answer = b.send(&reader);
    assert_eq!(
        (&answer["status"], &answer["access"]),
        (&json!("success"), &json!("ro")),
        "{answer}"
    );
    assert_eq!(b.send(&b.request("mount", 2, "tank"))["error_code"], "busy");
    a.done("unmount", 1, "tank");
    // The reader is no obstacle for a writer.
    a.done("mount", 1, "tank");
    a.done("unmount", 1, "tank");
    // Alone there, it may write now.
    assert_eq!(b.done("mount", 2, "tank")["access"], "rw");
    assert_eq!(a.send(&a.request("mount", 1, "tank"))["error_code"], "busy");
    b.done("unmount", 2, "tank");
}

#[test]
fn a_job_whose_dms_with_was_killed_keeps_its_pool_until_it_ends_and_its_node_is_reconciled() {
    let lab = Lab::new();
    let (a, b) = (ZfsHost::start(&lab, "host-a"), ZfsHost::start(&lab, "host-b"));
    a.make_pool("tank");
    let file = lab.path("request");
    fs::write(&file, a.request("mount", 1, "tank").to_string()).expect("room for it");
    let script =
        "echo $PPID; read x; echo more >\"$DMS_MOUNT_PATH/tank/data\" && echo written; read x";
    let request = file.display().to_string();
    let mut job = Filter::start(&mut a.command("dms-with", &[&request, "--", "sh", "-c", script]));
    let dms_with = job.answer().as_i64().expect("a process id");
    let dms_with = Pid::from_raw(i32::try_from(dms_with).expect("a process id"));
    kill(dms_with, Signal::SIGKILL).expect("it runs");
    let reconcile = || {
        let pipe = "dms-mount list | dms-ledger reconcile --host host-a | dms-pipeline";
        a.run("sh", &["-c", pipe]).expect(0).stdout.clone()
    };
    // The command goes on, and so does its pool.
    assert_eq!(reconcile(), "");
    job.tell_line(b"");
    assert_eq!(job.line(), "written");
    let refused = b.send(&b.request("mount", 2, "tank"));
    let words = "pool tank is imported read-write on host-a for job 1";
    assert_eq!((text(&refused, "error_code"), text(&refused, "error_msg")), ("busy", words));
    job.end();
    eventually("its pool is let go", || reconcile().contains("\"unmounted\":true"));
    assert_eq!(a.pools(), [] as [String; 0]);
    b.done("mount", 2, "tank");
    b.run("grep", &["-q", "more", &b.altroot().join("tank/data").display().to_string()]).expect(0);
    b.done("unmount", 2, "tank");
}

#[test]
fn a_daemon_and_a_command_on_the_same_pool_do_not_hurt_each_other() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let broker = Broker::start();
    let _listener = listen(&lab, &broker, &host);
    let work = |job: i32, ask: &mut dyn FnMut(&Value) -> Value| {
        let file = host.altroot().join(format!("tank/of-{job}")).display().to_string();
        for round in 0..rounds(200) {
            for action in ["mount", "unmount"] {
                let answer = ask(&host.request(action, job, "tank"));
                assert_eq!(answer["status"], "success", "round {round} of job {job}: {answer}");
                if action == "mount" {
                    host.run("touch", &[&file]).expect(0);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut caller = call(&lab, &broker);
            work(1, &mut |request| caller.ask(request));
        });
        // A process for each request, as from a shell.
        scope.spawn(|| work(2, &mut |request| host.send(request)));
    });
    assert_eq!(host.pools(), [] as [String; 0]);
    assert_eq!(lab.users("t"), [] as [i64; 0]);
}

#[test]
fn with_a_stand_in_what_dies_while_it_imports_keeps_the_pool_for_its_host_to_tell() {
    let lab = Lab::new();
    let (a, b) = (ZfsHost::stand_in(&lab, "host-a"), ZfsHost::stand_in(&lab, "host-b"));
    fs::write(a.path("slow"), "").expect("room for it");
    let mut pipeline = Filter::start(&mut a.pipeline());
    pipeline.tell(&a.request("mount", 1, "tank"));
    eventually("zpool is told", || !a.told().is_empty());
    let run_dir = a.path("run").display().to_string();
    for process in processes_with(&run_dir) {
        if process.stage() == Some("mount") {
            process.signal(Signal::SIGKILL);
        }
    }
    let lost = pipeline.answer();
    assert_eq!(lost["error_code"], "internal", "{lost}");
    pipeline.end();
    let ask_within = |seconds: &str| {
        let mut pipeline = b.pipeline();
        pipeline.env("DMS_REQUEST_TIMEOUT", seconds);
        run(&mut pipeline, format!("{}\n", b.request("mount", 2, "tank")).as_bytes()).line()
    };
    // Whether that run has ended, only its own host can see.
    assert_eq!(ask_within("1")["error_code"], "lock_timeout");
    a.run("dms-ledger", &["list"]).expect(0);
    assert_eq!(ask_within("60")["error_code"], "busy");
    // Nobody waits for it any more, and it imports the pool after all.
    fs::remove_file(a.path("slow")).expect("it is there");
    eventually("it is imported", || a.pools().len() == 1);
    let refused = ask_within("60");
    assert!(
        text(&refused, "error_msg").contains("may be imported read-write on host-a"),
        "{refused}"
    );
    let reconcile = "dms-mount list | dms-ledger reconcile --host host-a | dms-pipeline";
    let settled = a.run("sh", &["-c", reconcile]);
    assert_eq!(settled.expect(0).line()["unmounted"], true, "{settled}");
    assert_eq!(a.pools(), [] as [String; 0]);
    b.done("mount", 2, "tank");
}
