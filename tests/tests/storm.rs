//! Several controllers at once, each with a lock directory of its own: nothing but the ledger's
//! protocol keeps them apart. A witness writes through every mount for as long as it is held.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Lab, is_long_run};
use serde_json::Value;

const CONTROLLERS: u64 = 8;
const TARGETS: u64 = 3;

/// What one controller's jobs saw.
#[derive(Debug, Default)]
struct Seen {
    holds: u64,
    physical: u64,
    writes: u64,
    longest: Duration,
}

/// One job after the other, until `end`.
fn jobs(lab: &Lab, number: u64, end: Instant) -> Seen {
    let mut pipeline = lab.pipeline_command();
    let own_locks = lab.path(&format!("lock-{number}"));
    let mut controller = Filter::start(pipeline.env("DMS_LOCK_DIR", own_locks));
    let mut seen = Seen::default();
    let mut dice = 17 + number;
    for round in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = format!("t{}", (dice >> 33) % TARGETS);
        let job = i32::try_from(number * 100_000 + round).expect("a small number");
        let mut timed = |request: &Value| {
            let start = Instant::now();
            let answer = controller.ask(request);
            seen.longest = seen.longest.max(start.elapsed());
            assert_eq!(answer["status"], "success", "job {job}: {answer}");
            answer
        };
        let mounted = timed(&lab.request("mount", job, &target));
        seen.physical += u64::from(mounted["physically_mounted"] == true);
        for write in 0..=(dice >> 40) % 4 {
            let name = format!("job-{job}-{write}");
            let path = lab.mount_point(&target).join(&name);
            fs::write(&path, &name).unwrap_or_else(|why| panic!("job {job} at {target}: {why}"));
            let object = fs::read_to_string(lab.object(&name));
            assert_eq!(object.ok().as_deref(), Some(&*name), "job {job} wrote beside {target}");
            seen.writes += 1;
        }
        timed(&lab.request("unmount", job, &target));
        seen.holds += 1;
    }
    controller.end();
    seen
}

#[test]
fn controllers_that_share_only_the_ledger_never_take_a_mount_from_a_job() {
    let lab = Lab::new();
    let end = Instant::now() + Duration::from_secs(if is_long_run() { 120 } else { 10 });
    let seen: Vec<Seen> = thread::scope(|scope| {
        let lab = &lab;
        let running: Vec<_> =
            (0..CONTROLLERS).map(|number| scope.spawn(move || jobs(lab, number, end))).collect();
        running.into_iter().map(|thread| thread.join().expect("no violation")).collect()
    });
    let total = |part: fn(&Seen) -> u64| seen.iter().map(part).sum::<u64>();
    let longest = seen.iter().map(|seen| seen.longest).max().unwrap_or_default();
    let text = format!(
        "{CONTROLLERS} controllers, {TARGETS} targets: {} holds, {} physical mounts, {} writes, \
         longest call {longest:?}",
        total(|seen| seen.holds),
        total(|seen| seen.physical),
        total(|seen| seen.writes)
    );
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    assert!(total(|seen| seen.holds) > 100 && total(|seen| seen.physical) > 5, "{text}");
    for target in 0..TARGETS {
        let target = format!("t{target}");
        lab.assert_gone(&target);
        assert_eq!(lab.users(&target), [0; 0]);
    }
}
