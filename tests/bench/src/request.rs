//! A request over RabbitMQ, through the listener and its running pipeline, beside the floor; and
//! what stands in between.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Broker, Database, Filter, Lab, Listener, Peer, Process, processes_with};
use serde_json::Value;

use crate::consumer::Consumer;
use crate::memory::processor_time;
use crate::sample::{Sample, in_turns, timed};
use crate::stage::{ask, database, mount_targets, node, request, succeed};
use crate::table::{Limit, Table};

const ROUNDS: usize = 400;
const CALLERS: usize = 16;
const TURNS: u32 = 3;
const TURN: Duration = Duration::from_secs(4);

/// The part of the floor that is a database of its own, and the queues of all contenders.
struct Stage {
    lab: Lab,
    broker: Broker,
    peer: Peer,
    targets: Vec<String>,
    database: Arc<Database>,
    floor: String,
}

impl Stage {
    fn new() -> Stage {
        let database = database();
        let lab = node(Some(&database));
        let broker = Broker::start();
        let peer = Peer::client(&broker);
        let targets = mount_targets(&lab, CALLERS);
        let floor = database.create("floor");
        let mut init = lab.command("dms-ledger", &["init"]);
        assert!(init.env("DMS_DB_URL", &floor).status().is_ok_and(|end| end.success()));
        Stage { lab, broker, peer, targets, database, floor }
    }

    fn request(&self, action: &str, job: i32) -> Value {
        request(&self.lab, action, job, &self.targets[0])
    }

    /// One job after the other mounts and leaves; the time is that of this action.
    fn one(&self, queue: &str, job: i32, action: &str) -> f64 {
        let mut took = 0.0;
        for step in ["mount", "unmount"] {
            let request = self.request(step, job);
            let time = timed(|| succeed(&ask(&self.peer, queue, &request)));
            took = if step == action { time } else { took };
        }
        took
    }
}

pub(crate) fn measure(table: &mut Table) {
    let stage = Stage::new();
    let queue = stage.lab.queue();
    let _listener =
        Listener::start(&stage.lab, &stage.broker, &["--jobs", "16", "--", "dms-pipeline"]);
    let _floor = Consumer::start(&stage.broker, "floor", Some(&stage.floor));
    let _echo = Consumer::start(&stage.broker, "echo", None);
    for queue in ["floor", "echo"] {
        stage.peer.declare(queue);
    }
    for (action, limit) in [("mount", Limit::AtMost(1.5)), ("unmount", Limit::AtMost(1.5))] {
        let [ours, theirs] = in_turns(
            ROUNDS,
            &mut [&mut || stage.one(&queue, 2, action), &mut || stage.one("floor", 2, action)],
        );
        let what = format!("{action}, target mounted, over the broker, listener, pipeline");
        let floor = "the floor behind a bare consumer";
        table.ratio(&what, &ours, (floor, &theirs), limit);
        table.figure("  p99 by p50", ours.part(99.0) / ours.median(), "times", Limit::AtMost(4.0));
        table.figure("  p50", ours.median(), "ms", Limit::AtMost(2.0));
    }
    storm(table, &stage, &queue);
    pieces(table, &stage);
    drop(stage.database);
}

/// All callers at once, each at a target of its own; in turns with as many of the floor.
fn storm(table: &mut Table, stage: &Stage, queue: &str) {
    let floor = || Consumer::start(&stage.broker, "floor", Some(&stage.floor));
    let _floors: Vec<Consumer> = (1..CALLERS).map(|_| floor()).collect();
    // The filters start.
    for queue in [queue, "floor"] {
        rush(stage, queue, Duration::from_secs(2));
    }
    let parts = parts(stage);
    let processor_times = || parts.each_ref().map(|(_, pids)| processor_time(pids));
    let [mut ours, mut theirs] = [Vec::new(), Vec::new()];
    let mut spent = [0.0; 4];
    for _ in 0..TURNS {
        let before = processor_times();
        ours.extend(rush(stage, queue, TURN));
        let after = processor_times();
        for (spent, (after, before)) in spent.iter_mut().zip(after.into_iter().zip(before)) {
            *spent += after - before;
        }
        theirs.extend(rush(stage, "floor", TURN));
    }
    #[allow(clippy::cast_precision_loss)]
    let [count, floors] = [ours.len(), theirs.len()].map(|count| count as f64);
    let took = (TURN * TURNS).as_secs_f64();
    let what = format!("requests a second, {CALLERS} callers over {CALLERS} targets");
    table.figure(&what, count / took, "a second", Limit::AtLeast(1000.0));
    let rates = (count / took, floors / took);
    let against = format!("{CALLERS} of the floor behind bare consumers");
    table.figures("  beside the floor", rates, "a second", &against, Limit::None);
    let times: Sample = ours.into_iter().collect();
    table.figure("  p50 of those", times.median(), "ms", Limit::None);
    table.figure("  p99 of those", times.part(99.0), "ms", Limit::None);
    // Waiting does not count: so it is nearly the same on a busy machine.
    for ((name, _), spent) in parts.iter().zip(spent) {
        let what = format!("  processor time of each: {name}");
        table.figure(&what, spent * 1e3 / count, "ms", Limit::None);
    }
    let all = spent.iter().sum::<f64>() * 1e3 / count;
    table.figure("  all of it", all, "ms", Limit::AtMost(2.0));
}

/// What each of the callers' requests took, in milliseconds.
fn rush(stage: &Stage, queue: &str, time: Duration) -> Vec<f64> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| scope.spawn(move || call(stage, queue, caller, end)))
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("it is answered")).collect()
    })
}

/// Who takes part, and their processes.
fn parts(stage: &Stage) -> [(&'static str, Vec<i32>); 4] {
    let pids = |processes: Vec<Process>| processes.into_iter().map(|process| process.pid).collect();
    let database = stage.database.root().display().to_string();
    let mut lab = stage.lab.processes();
    lab.retain(|process| process.pid != std::process::id().cast_signed());
    [
        ("the listener and the pipelines", pids(lab)),
        ("MariaDB", pids(processes_with(&database))),
        ("RabbitMQ", pids(stage.broker.processes())),
        ("the callers", vec![std::process::id().cast_signed()]),
    ]
}

fn call(stage: &Stage, queue: &str, caller: usize, end: Instant) -> Vec<f64> {
    let peer = Peer::client(&stage.broker);
    let requests =
        ["mount", "unmount"].map(|action| request(&stage.lab, action, 2, &stage.targets[caller]));
    let mut times = Vec::new();
    while Instant::now() < end {
        for request in &requests {
            times.push(timed(|| succeed(&ask(&peer, queue, request))));
        }
    }
    times
}

/// What a request goes through, one by one.
fn pieces(table: &mut Table, stage: &Stage) {
    let own = request(&stage.lab, "mount", 2, &stage.targets[0]);
    let lab = Lab::unique();
    let _listener = Listener::start(&lab, &stage.broker, &["--", "cat"]);
    let mut echo = own;
    echo["host"] = lab.node.clone().into();
    let round = |queue: &str, request: &Value| timed(|| ask(&stage.peer, queue, request));
    let [ours, theirs] =
        in_turns(ROUNDS, &mut [&mut || round(&lab.queue(), &echo), &mut || round("echo", &echo)]);
    let what = "a round trip through the listener, cat as the filter";
    table.ratio(what, &ours, ("the broker's own, to a bare consumer", &theirs), Limit::None);
    let warm = RefCell::new(Filter::start(&mut stage.lab.pipeline_command()));
    let ask = |action: &str| succeed(&warm.borrow_mut().ask(&stage.request(action, 3)));
    let [kept, started] = in_turns(
        150,
        &mut [
            &mut || {
                let time = timed(|| ask("mount"));
                ask("unmount");
                time
            },
            &mut || {
                let time = timed(|| succeed(&stage.lab.send(&stage.request("mount", 3))));
                ask("unmount");
                time
            },
        ],
    );
    warm.into_inner().end();
    let what = "a request through a pipeline that is kept running";
    table.ratio(what, &kept, ("one that is started for it", &started), Limit::None);
}
