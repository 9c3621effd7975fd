//! What an operator does by hand on a node: `ps`, `kill`, `clean`, `check`, and how far an unmount
//! may go.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dms_tests::{Lab, Run, Witness, answer, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn node(lab: &Lab, args: &[&str]) -> Run {
    lab.feed("dms-mount", args, "")
}

/// An unmount straight at the node, with these options.
fn unmount(lab: &Lab, target: &str, args: &[&str]) -> Value {
    let request = lab.request("unmount", 1, target).to_string();
    lab.feed("dms-mount", args, &request).line()
}

#[test]
fn ps_shows_each_daemon_and_how_it_is() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.mount(2, "t2");
    let pid = lab.daemons("t1")[0].pid;
    let text = node(&lab, &["ps"]).expect(0).stdout.clone();
    assert!(text.starts_with("TARGET") && text.contains("2 tracked, 2 alive"), "{text}");
    let row = node(&lab, &["ps", "t1", "--json"]).expect(0).line();
    assert_eq!((row["pid"].as_i64(), row["alive"].as_bool()), (Some(pid.into()), Some(true)));
    assert_eq!(row["mounted"], true);
    assert!(row["rss"].as_u64().is_some_and(|kib| kib > 100), "{row}");
    assert!(row["path"].as_str().is_some_and(|path| path.ends_with("/t1")), "{row}");
    let user = lab.job_in("t1");
    let detailed = node(&lab, &["ps", "--detailed", "t1"]).expect(0).stdout.clone();
    let value = |name: &str| {
        let line = detailed.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {detailed}"))[name.len()..].trim().to_owned()
    };
    assert_eq!((&*value("type"), &*value("health")), ("s3", "alive"));
    assert_eq!(value("users"), user.pid().to_string());
    assert_eq!(value("source"), "dms:t1/bucket");
    user.release();

    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("t1").is_empty());
    let row = node(&lab, &["ps", "t1", "--json"]).expect(0).line();
    assert_eq!((row["alive"].as_bool(), row["mounted"].as_bool()), (Some(false), Some(true)));
    assert!(node(&lab, &["ps"]).stdout.contains("2 tracked, 1 alive"));
    node(&lab, &["ps", "t9"]).expect(1);
}

#[test]
fn ps_watches_until_it_is_interrupted() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let mut command = lab.command("dms-mount", &["ps", "--watch", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it was built");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("it goes on").expect("it can be read");
        assert!(line.contains("\"target\":\"t1\""), "{line}");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it runs");
    assert!(child.wait().expect("it is ours").success());
    lab.unmount(1, "t1");
}

#[test]
fn kill_ends_daemons_of_our_mounts_and_nobody_else() {
    let lab = Lab::new();
    for (job, target) in [(1, "t1"), (2, "t2"), (3, "t3")] {
        lab.mount(job, target);
    }
    let stranger = lab.hold(&["somebody"]);
    let refused = node(&lab, &["kill", &stranger.pid().to_string()]);
    assert!(refused.expect(1).stderr.contains("is no daemon of a mount of ours"), "{refused}");
    node(&lab, &["kill", "1"]).expect(1);
    node(&lab, &["kill"]).expect(100);

    let pid = lab.daemons("t1")[0].pid;
    assert!(node(&lab, &["kill", "--force", "t1"]).expect(0).stdout.contains("t1: pid"));
    assert!(lab.daemons("t1").iter().all(|daemon| daemon.pid != pid));
    node(&lab, &["kill", &lab.daemons("t2")[0].pid.to_string()]).expect(0);
    assert!(lab.daemons("t2").is_empty() && !lab.daemons("t3").is_empty());
    node(&lab, &["kill", "--all"]).expect(0);
    assert!(lab.daemons("t3").is_empty());
    stranger.release();
    // The jobs are still there: their mounts come back.
    lab.shell("dms-mount list | dms-ledger reconcile | dms-pipeline").expect(0);
    for (job, target) in [(1, "t1"), (2, "t2"), (3, "t3")] {
        assert!(lab.mounted(target).is_some(), "{target}");
        assert_eq!(lab.unmount(job, target)["unmounted"], true);
    }
}

#[test]
fn clean_puts_away_what_is_dead_and_takes_on_what_lives() {
    let lab = Lab::new();
    for (job, target) in [(1, "dead"), (2, "held"), (3, "lost"), (4, "well")] {
        lab.mount(job, target);
    }
    let job = lab.job_in("held");
    for target in ["dead", "held"] {
        lab.daemons(target)[0].signal(Signal::SIGKILL);
        eventually("it ends", || lab.daemons(target).is_empty());
    }
    fs::remove_file(lab.path("run/mounts/lost")).expect("it was written");
    fs::write(lab.path("run/s3/never.pid"), "4000000\n").expect("room for it");

    let cleaned = node(&lab, &["clean"]);
    let said: Vec<&str> = cleaned.expect(1).stdout.lines().collect();
    assert_eq!(said.len(), 3, "{cleaned}");
    assert!(said[0].starts_with("dead: its daemon was gone: unmounted"), "{cleaned}");
    assert!(said[1].starts_with("lost: mounted at"), "{cleaned}");
    assert!(said[2].starts_with("never: nothing is mounted"), "{cleaned}");
    assert!(
        cleaned.stderr.contains("held: its daemon is gone, and the mount is left"),
        "{cleaned}"
    );
    lab.assert_gone("dead");
    assert!(lab.path("run/mounts/lost").exists() && !lab.path("run/s3/never.pid").exists());
    job.release();
    assert!(node(&lab, &["clean"]).expect(0).stdout.starts_with("held: its daemon was gone"));
    assert_eq!(node(&lab, &["clean"]).expect(0).stdout, "");
    for (job, target) in [(3, "lost"), (4, "well")] {
        assert_eq!(lab.unmount(job, target)["unmounted"], true);
    }
}

#[test]
fn a_daemon_that_had_no_time_to_answer_is_not_known_to_hang() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let daemon = lab.daemons("t1").remove(0);
    daemon.signal(Signal::SIGSTOP);
    eventually("it stands still", || daemon.is_stopped());
    let uptime = fs::read_to_string("/proc/uptime").expect("/proc is there");
    let now: f64 = uptime.split(' ').next().unwrap_or_default().parse().expect("a number");
    let mut request = lab.request("unmount", 1, "t1");
    request["deadline"] = json!(now + 1.0);
    let answer = lab.feed("dms-mount", &["--on-hung", "kill"], &request.to_string()).line();
    let runs = daemon.is_stopped();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(runs && daemon.runs(), "it was ended, in too little time to know");
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
}

#[test]
fn check_says_when_mounts_are_seen_by_nobody_else() {
    let lab = Lab::new();
    // Among processes of which the test's own shell is the first: into another one's namespaces not
    // even root may look everywhere.
    let script = "dms-mount check; echo; unshare -m dms-mount check";
    let args = ["--pid", "--fork", "--mount-proc", "sh", "-c", script];
    let run = run(&mut lab.command("unshare", &args), b"");
    let (first, own) = run.stdout.split_once("\n\n").expect("there are two");
    assert!(first.contains("ok: mounts are seen by the whole host"), "{run}");
    let text = "warning: this is a mount namespace of its own: does the host see its mounts?";
    assert!(own.contains(text), "{run}");
}

#[test]
fn check_says_what_is_there_and_what_is_missing() {
    let lab = Lab::new();
    let good = node(&lab, &["check"]);
    assert!(good.expect(0).stdout.contains("ok: S3 targets by s3fs, /usr/bin/s3fs"), "{good}");
    let mut command = lab.command("dms-mount", &["check"]);
    let bad = run(command.env("DMS_S3_PROGRAM", "s3vaultfuse"), b"");
    let text = "error: S3 targets by s3vaultfuse.py: it is not installed";
    assert!(bad.expect(1).stdout.contains(text), "{bad}");
}

#[test]
fn check_tries_the_key_manager_without_a_token_and_within_a_bound() {
    let lab = Lab::new();
    let check = |url: &str| {
        let mut command = lab.command("dms-mount", &["check"]);
        command.env("DMS_BARBICAN_URL", url).env("KEYSTONE_TOKEN", "gAAAA-of-the-operator");
        run(&mut command, b"").expect(1).stdout.clone()
    };
    let broken = Witness::saying(answer(503, ""));
    assert!(check(&broken.url()).contains(&format!("error: {} has failed (503)", broken.url())));
    assert!(broken.heard().starts_with("GET / HTTP/1.1\r\n"), "{}", broken.heard());
    assert!(!broken.heard().to_lowercase().contains("x-auth-token"), "{}", broken.heard());
    let silent = Witness::start(|_, stream| {
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let start = Instant::now();
    let said = check(&silent.url());
    assert!(said.contains(&format!("error: timeout: {} does not answer", silent.url())), "{said}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn an_unmount_goes_as_far_as_it_is_told_and_says_how_far_that_was() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let job = lab.job_in("t1");
    for args in [&[][..], &["--on-busy", "fail"]] {
        let answer = unmount(&lab, "t1", args);
        assert_eq!(answer["error_code"], "busy", "{args:?}: {answer}");
        let text = answer["error_msg"].as_str().unwrap_or_default();
        assert!(text.contains(&format!("pid {}", job.pid())), "{answer}");
        assert!(lab.mounted("t1").is_some());
    }
    let answer = unmount(&lab, "t1", &["--on-busy", "lazy"]);
    assert_eq!(
        (answer["status"].as_str(), answer["unmount_method"].as_str()),
        (Some("success"), Some("lazy"))
    );
    assert_eq!(lab.mounted("t1"), None);
    assert!(!lab.daemons("t1").is_empty(), "whoever has files open may go on");
    job.release();
    eventually("the daemon ends with the last that used it", || lab.daemons("t1").is_empty());

    lab.mount(3, "t3");
    let job = lab.job_in("t3");
    let answer = unmount(&lab, "t3", &["--on-busy", "force"]);
    assert_eq!(answer["unmount_method"], "force", "{answer}");
    assert_eq!((lab.mounted("t3"), lab.daemons("t3")), (None, vec![]));
    job.release();

    lab.mount(2, "t2");
    assert_eq!(lab.unmount(2, "t2")["unmount_method"], "umount");
    assert_eq!(unmount(&lab, "t2", &[])["unmount_method"], Value::Null, "there was nothing");
}

#[test]
fn a_daemon_that_hangs_is_ended_only_when_that_is_asked_for() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let daemon = lab.daemons("t1").remove(0);
    daemon.signal(Signal::SIGSTOP);
    let answer = unmount(&lab, "t1", &[]);
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(!lab.daemons("t1").is_empty(), "it was killed");
    let answer = unmount(&lab, "t1", &["--on-hung", "kill"]);
    assert_eq!(
        (answer["status"].as_str(), answer["unmount_method"].as_str()),
        (Some("success"), Some("kill"))
    );
    assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, vec![]));
}
