//! kill -9 of any stage at any moment: the next command repairs it, and the count is right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dms_tests::{Dice, Filter, Lab, Process, eventually, is_long_run};
use nix::sys::signal::Signal;

/// How many operations have to be cut between plan and commit: more in a long run. For each, about
/// four stages are killed.
fn cuts() -> usize {
    match (is_long_run(), std::env::var_os("DMS_TEST_DB").is_some()) {
        (true, _) => 1000,
        (false, false) => 100,
        // The second time, on the other engine.
        (false, true) => 50,
    }
}

/// Starts one request and kills one of its stages after a while. Which one, if it was there.
fn crash(
    lab: &Lab,
    action: &str,
    job: i32,
    victim: &'static str,
    after: Duration,
) -> Option<&'static str> {
    let mut pipeline = lab.pipeline_command();
    let mut child = pipeline
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is there");
    let request = format!("{}\n", lab.request(action, job, "t1"));
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(request.as_bytes());
    let end = Instant::now() + after;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    let found = lab.processes().into_iter().find(|process| process.stage() == Some(victim));
    let hit = found.is_some_and(|process| process.signal(Signal::SIGKILL));
    drop(stdin);
    child.wait().expect("it is ours");
    hit.then_some(victim)
}

/// The operations whose pipeline ended between plan and commit.
fn cut_operations(lab: &Lab) -> usize {
    let cut = |op: &serde_json::Value| {
        op["message"].as_str().is_some_and(|m| m.contains("pipeline ended"))
    };
    lab.history("t1").iter().filter(|op| cut(op)).count()
}

#[test]
fn two_hundred_kills_of_any_stage_are_repaired_by_the_next_command() {
    let lab = Lab::new();
    let mut dice = Dice::new(42);
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    let mut unknown = 0;
    // How long a request takes here and now: a kill is to come within that time.
    let mut usual = Duration::from_millis(25);
    // Job 1 stays for some rounds, so that mounts and unmounts of job 2 are of both kinds.
    for round in 0.. {
        if round % 50 == 0 {
            if cut_operations(&lab) >= cuts() {
                break;
            }
            assert!(round < 20 * cuts(), "too few kills hit an operation: {hits:?}");
            lab.mount(1, "t1");
        } else if round % 50 == 10 {
            lab.unmount(1, "t1");
        }
        let job_1 = round % 50 < 10;
        let action = if round % 2 == 0 { "mount" } else { "unmount" };
        let victim = ["plan", "mount", "commit", "lock", "sh"][dice.below(5) as usize];
        let micros = u64::try_from(usual.as_micros()).unwrap_or(u64::MAX);
        let after = Duration::from_micros(dice.below(micros));
        if let Some(hit) = crash(&lab, action, 2, victim, after) {
            *hits.entry(hit).or_default() += 1;
        }

        // The next command, by the same job: the same wish again.
        let start = Instant::now();
        let answer = lab.send(&lab.request(action, 2, "t1"));
        usual = start.elapsed();
        let left_already = action == "unmount" && answer["error_code"] == "no_active_mount";
        if left_already {
            unknown += 1;
        }
        assert!(answer["status"] == "success" || left_already, "round {round} {victim}: {answer}");

        let mut wanted = Vec::new();
        wanted.extend(job_1.then_some(1));
        wanted.extend((action == "mount").then_some(2));
        assert_eq!(lab.users("t1"), wanted, "round {round}, {action}, {victim} killed");
        let physically = !wanted.is_empty();
        assert_eq!(lab.mounted("t1").is_some(), physically, "round {round}, {action}, {victim}");
        assert!(lab.daemons("t1").len() <= 1, "round {round}: {:?}", lab.daemons("t1"));
        if physically {
            let file = lab.mount_point("t1").join("witness");
            std::fs::write(&file, round.to_string()).expect("a job that was told yes can write");
            let object = std::fs::read_to_string(lab.object("witness")).expect("in the bucket");
            assert_eq!(object, round.to_string(), "written beside the mount");
        }
    }
    assert_eq!(hits.len(), 5, "a stage was never hit: {hits:?}");
    report(&hits, unknown);

    lab.mount(3, "t1");
    lab.unmount(3, "t1");
    lab.assert_gone("t1");
    eventually("every process ended", || {
        lab.processes().iter().all(|process| {
            process.command.contains("dms-test-s3")
                || process.pid == std::process::id().cast_signed()
        })
    });
    let pending = lab
        .history("t1")
        .iter()
        .filter(|op| op["status"] == "pending" || op["status"] == "unsettled")
        .count();
    assert_eq!(pending, 0, "an operation was never settled");
    let left = std::fs::read_dir(lab.path("lock/life")).expect("it was made").count();
    assert!(left <= 40, "{left} life locks of dead runs lie about");
}

#[test]
fn a_mount_that_was_cut_in_half_is_taken_away_by_an_unmount_at_once() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    // How long it takes on this machine, now: the cuts are spread over that.
    let start = Instant::now();
    lab.feed("dms-mount", &[], &request.to_string()).expect(0);
    let usual = start.elapsed();
    request["action"] = "unmount".into();
    lab.feed("dms-mount", &[], &request.to_string()).expect(0);
    let mut cut = 0;
    for round in 0..40 {
        request["action"] = "mount".into();
        let mut node = Filter::start(&mut lab.command("dms-mount", &[]));
        node.tell(&request);
        let end = Instant::now() + usual * round / 40;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        let process = Process { pid: node.pid(), command: String::new() };
        process.signal(Signal::SIGKILL);
        node.end();
        cut += u32::from(!lab.daemons("t1").is_empty());
        request["action"] = "unmount".into();
        let start = Instant::now();
        let run = lab.feed("dms-mount", &[], &request.to_string());
        assert_eq!(run.line()["status"], "success", "round {round}: {run}");
        assert!(start.elapsed() < Duration::from_secs(5), "round {round}: {:?}", start.elapsed());
        assert!(!run.stderr.contains("behind"), "round {round}: {run}");
        lab.assert_gone("t1");
    }
    assert!(cut >= 5, "only {cut} kills left a daemon behind");
}

/// A process that is killed gives its files up one by one, and so does a child of its that was just
/// being started: the act lock is free a moment before the lock on the mount point.
#[test]
fn a_mount_point_that_the_dying_still_hold_is_waited_for() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    lab.feed("dms-mount", &[], &request.to_string()).expect(0);
    for (action, message) in [("mount", "mounted"), ("unmount", "not mounted")] {
        let mount_point = lab.mount_point("t1");
        let umount = Command::new("umount").arg(&mount_point).status().expect("it is there");
        assert!(umount.success(), "{umount}");
        let held = File::open(&mount_point).expect("the bare directory");
        held.try_lock().expect("nobody mounts there");
        let dying = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        request["action"] = action.into();
        let answer = lab.feed("dms-mount", &[], &request.to_string()).line();
        dying.join().expect("it does not panic");
        assert_eq!(answer["status"], "success", "{answer}");
        assert!(answer["success_msg"].as_str().is_some_and(|m| m.contains(message)), "{answer}");
    }
    lab.assert_gone("t1");
}

/// What was hit, for whoever reads the test's output.
fn report(hits: &BTreeMap<&str, u32>, unknown: u32) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "kills that hit: {hits:?}; unmounts that had been done: {unknown}");
}
