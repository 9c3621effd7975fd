//! Those who write to a ledger in a file stand in a queue: who waits takes nothing from who writes.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Lab};

/// So long one stands in it, at most.
const QUEUE: Duration = Duration::from_millis(300);

fn head_of_queue(lab: &Lab) -> File {
    let head = File::open(lab.path("state/ledger.db-queue")).expect("whoever writes has made it");
    head.lock().expect("nobody writes");
    head
}

#[test]
fn who_writes_waits_for_who_came_first() {
    let lab = Lab::on_sqlite();
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let mut plan = Filter::start(&mut lab.command("dms-ledger", &["plan"]));
    // On a busy machine, a look may come too late.
    let is_seen = (0..20).any(|round| {
        let target = format!("t{round}");
        let head = head_of_queue(&lab);
        let start = Instant::now();
        plan.tell(&lab.request("mount", 1, &target));
        sleep(QUEUE / 4);
        let planned = lab.history(&target);
        let in_time = start.elapsed() < QUEUE;
        assert!(!in_time || planned.is_empty(), "it did not wait: {planned:?}");
        drop(head);
        assert_eq!(plan.answer()["plan"]["decision"], "mount");
        assert_eq!(lab.history(&target).len(), 1);
        in_time
    });
    plan.end();
    assert!(is_seen, "no look was in time");
}

#[test]
fn who_stays_at_the_head_of_the_queue_keeps_nobody_from_writing() {
    let lab = Lab::on_sqlite();
    lab.feed("dms-ledger", &["init"], "").expect(0);
    // As somebody does who was stopped there.
    let head = head_of_queue(&lab);
    for target in ["t1", "t2"] {
        let start = Instant::now();
        let plan = lab.feed("dms-ledger", &["plan"], &lab.request("mount", 1, target).to_string());
        assert_eq!(plan.line()["plan"]["decision"], "mount", "{plan}");
        assert!(start.elapsed() >= QUEUE, "it did not stand in the queue");
    }
    drop(head);
}
