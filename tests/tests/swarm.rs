//! Fifty callers, twenty targets, five nodes, one broker, while the broker is restarted and
//! listeners and filters are killed: every caller gets an answer, and a job that was told "mounted"
//! is never without its mount.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Broker, Dice, Filter, Lab, Listener, eventually, is_long_run};
use nix::sys::signal::Signal;
use serde_json::Value;

const CALLERS: u64 = 50;
const NODES: usize = 5;
const TARGETS_A_NODE: u64 = 4;

/// How long a caller waits for an answer, and for the caller's own end of it.
const TIMEOUT: Duration = Duration::from_secs(40);
const SLACK: Duration = Duration::from_secs(15);

/// Where the ledger is.
#[derive(Clone, Copy, PartialEq)]
enum Topology {
    /// On each node; callers have none.
    Node,
    /// At the callers, one for all nodes; the nodes only mount.
    Client,
}

struct Swarm {
    topology: Topology,
    nodes: Vec<Lab>,
    /// Where the callers are, and the ledger of [`Topology::Client`].
    client: Lab,
    url: String,
    asked: AtomicU64,
    /// What callers were answered, and how often.
    answers: Mutex<BTreeMap<String, u64>>,
    holds: AtomicU64,
    writes: AtomicU64,
    wanted: u64,
    is_over: AtomicBool,
}

impl Swarm {
    fn new(topology: Topology, broker: &Broker, wanted: u64) -> Swarm {
        Swarm {
            topology,
            nodes: (0..NODES).map(|number| Lab::named(&format!("swarm-{number}"))).collect(),
            client: Lab::named("controller"),
            url: broker.url(),
            asked: AtomicU64::new(0),
            answers: Mutex::default(),
            holds: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            wanted,
            is_over: AtomicBool::new(false),
        }
    }

    fn listener(&self, node: &Lab) -> Listener {
        let pipeline = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/dms-pipeline");
        let filter = if self.topology == Topology::Node { pipeline } else { "dms-mount" };
        // A node starts one again that has died, as its service manager would.
        let url = format!("{}?retry_delay=0.2", self.url);
        Listener::begin(node, &url, &["--jobs", "4", "--idle", "5", "--", filter])
    }

    fn caller(&self) -> Filter {
        let seconds = TIMEOUT.as_secs().to_string();
        let script = "dms-ledger plan | dms-call --wait-for-listener | dms-ledger commit";
        let mut command: Command = match self.topology {
            Topology::Node => {
                self.client.command("dms-call", &["--wait-for-listener", "--timeout", &seconds])
            }
            Topology::Client => {
                self.client.command("dms-lock", &["--each", "--", "sh", "-c", script])
            }
        };
        // As long as a restart takes.
        let url = format!("{}?connection_attempts=30&retry_delay=0.2", self.url);
        Filter::start(command.env("DMS_RABBITMQ_URL", url).env("DMS_REQUEST_TIMEOUT", seconds))
    }

    /// Asks, and counts what is answered. There is an answer.
    fn ask(&self, caller: &mut Filter, request: &Value) -> Value {
        let start = Instant::now();
        let answer = caller.ask(request);
        assert!(start.elapsed() < TIMEOUT * 2 + SLACK, "{:?}: {answer}", start.elapsed());
        self.asked.fetch_add(1, Ordering::Relaxed);
        let word = match answer["error_code"].as_str() {
            Some(code) => code.to_owned(),
            None => answer["status"].as_str().expect("each answer has one").to_owned(),
        };
        *self.answers.lock().expect("nobody panics with it").entry(word).or_default() += 1;
        answer
    }

    /// One job after the other, until enough was asked.
    fn jobs(&self, number: u64) {
        let mut caller = self.caller();
        let mut dice = Dice::new(number);
        for round in 0_u64.. {
            if self.asked.load(Ordering::Relaxed) >= self.wanted {
                break;
            }
            let node = &self.nodes[usize::try_from(dice.below(NODES as u64)).expect("small")];
            let target = format!("{}-t{}", node.node, dice.below(TARGETS_A_NODE));
            let job = i32::try_from(number * 10_000 + round).expect("a small number");
            let mut mount = node.request("mount", job, &target);
            mount["backup_target"]["filesystem_export_mount_path"] =
                node.mount_point(&target).display().to_string().into();
            if self.ask(&mut caller, &mount)["status"] == "success" {
                self.hold(node, &target, job, &mut dice);
            }
            // Whatever became of the mount, nothing of it may be left.
            self.release(&mut caller, &node.request("unmount", job, &target), &mut dice);
        }
        caller.end();
    }

    /// Uses the mount for a while: every write has to be in the bucket.
    fn hold(&self, node: &Lab, target: &str, job: i32, dice: &mut Dice) {
        let base = fs::metadata(node.path("mnt")).expect("the base is there").dev();
        for write in 0..=dice.below(3) {
            let name = format!("{target}-{job}-{write}");
            let path = node.mount_point(target).join(&name);
            write_beside(&path, &name, base).unwrap_or_else(|why| panic!("job {job}: {why}"));
            let object = fs::read_to_string(node.object(&name));
            assert_eq!(object.ok().as_deref(), Some(&*name), "job {job} wrote beside {target}");
            self.writes.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(dice.below(30)));
        }
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self, caller: &mut Filter, unmount: &Value, dice: &mut Dice) {
        let end = Instant::now() + Duration::from_secs(180);
        loop {
            let answer = self.ask(caller, unmount);
            if answer["status"] == "success" || answer["error_code"] == "no_active_mount" {
                return;
            }
            assert!(Instant::now() < end, "it is never released: {answer}");
            thread::sleep(Duration::from_millis(100 + dice.below(400)));
        }
    }

    /// Kills listeners and filters, and three times the broker, spread over the run.
    fn chaos(&self, mut broker: Broker, mut listeners: Vec<Listener>) -> (Broker, Vec<Listener>) {
        let mut dice = Dice::new(4711);
        let (mut restarts, mut kills) = (0, 0);
        while !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(400 + dice.below(800)));
            let asked = self.asked.load(Ordering::Relaxed);
            if restarts < 3 && asked > self.wanted * (restarts + 1) / 5 {
                match restarts {
                    0 => broker.restart(),
                    1 => {
                        broker.kill();
                        broker.start_again();
                    }
                    _ => {
                        broker.stop_app();
                        broker.start_app();
                    }
                }
                restarts += 1;
            }
            let node = usize::try_from(dice.below(NODES as u64)).expect("small");
            if dice.below(3) == 0 {
                listeners[node].signal(Signal::SIGKILL);
                listeners[node].wait();
                listeners[node] = self.listener(&self.nodes[node]);
                kills += 1;
            } else {
                kills += usize::from(self.kill_a_stage(node, &mut dice));
            }
        }
        let _ = writeln!(std::io::stderr().lock(), "{restarts} restarts, {kills} kills");
        assert_eq!(restarts, 3);
        (broker, listeners)
    }

    fn kill_a_stage(&self, node: usize, dice: &mut Dice) -> bool {
        let mut stages = self.nodes[node].processes();
        stages.retain(|process| {
            let mut words = process.command.split(' ').filter_map(|word| word.rsplit('/').next());
            matches!(
                (words.next(), words.next()),
                (Some("dms-ledger"), Some("plan" | "commit"))
                    | (Some("dms-lock"), Some("--each"))
                    | (Some("dms-mount"), None)
            )
        });
        if stages.is_empty() {
            return false;
        }
        let victim = usize::try_from(dice.below(stages.len() as u64)).expect("small");
        stages[victim].signal(Signal::SIGKILL)
    }

    /// What ledger and kernel have at the end, once one more job has come and gone everywhere.
    fn check(&self) {
        let mut caller = self.caller();
        let mut dice = Dice::new(1);
        for node in &self.nodes {
            for number in 0..TARGETS_A_NODE {
                let target = format!("{}-t{number}", node.node);
                let mut mount = node.request("mount", 1, &target);
                mount["backup_target"]["filesystem_export_mount_path"] =
                    node.mount_point(&target).display().to_string().into();
                let answer = self.ask(&mut caller, &mount);
                assert_eq!(answer["status"], "success", "{answer}");
                self.release(&mut caller, &node.request("unmount", 1, &target), &mut dice);
                let ledger = if self.topology == Topology::Node { node } else { &self.client };
                assert_eq!(ledger.users(&target), [0; 0], "{target} is still in use");
                node.assert_gone(&target);
            }
        }
        caller.end();
    }
}

/// Writes only where it is not the file system of the mount base.
fn write_beside(path: &Path, text: &str, base: u64) -> Result<(), String> {
    let dir = path.parent().expect("it is in a mount");
    let dev = fs::metadata(dir).map_err(|why| format!("{}: {why}", dir.display()))?.dev();
    if dev == base {
        return Err(format!("{} is not mounted", dir.display()));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|why| format!("{}: {why}", path.display()))?;
    file.write_all(text.as_bytes()).map_err(|why| format!("{}: {why}", path.display()))
}

fn swarm(topology: Topology, wanted: u64) {
    let broker = Broker::start();
    let swarm = Swarm::new(topology, &broker, wanted);
    let listeners: Vec<Listener> = swarm.nodes.iter().map(|node| swarm.listener(node)).collect();
    for listener in &listeners {
        listener.wait_for("serving", 1);
    }
    let start = Instant::now();
    let (broker, listeners) = thread::scope(|scope| {
        let swarm = &swarm;
        let chaos = scope.spawn(move || swarm.chaos(broker, listeners));
        let callers: Vec<_> =
            (0..CALLERS).map(|number| scope.spawn(move || swarm.jobs(number))).collect();
        let ends: Vec<_> = callers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        swarm.is_over.store(true, Ordering::Relaxed);
        let parts = chaos.join().expect("the broker comes back");
        assert!(ends.iter().all(Result::is_ok), "a caller saw what must not be");
        parts
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let text = format!(
        "{} requests in {:.0} s, {} holds, {} writes; answers: {:?}",
        count(&swarm.asked),
        start.elapsed().as_secs_f64(),
        count(&swarm.holds),
        count(&swarm.writes),
        swarm.answers.lock().expect("nobody panics with it")
    );
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    for (listener, node) in listeners.iter().zip(&swarm.nodes) {
        // The broker's last restart may have been a moment ago.
        eventually(&format!("it listens\n{}", listener.log()), || {
            broker.queue(&node.queue()).is_some_and(|queue| queue.consumers == 1)
        });
    }
    swarm.check();
    let half = count(&swarm.asked) / 2;
    let done = swarm.answers.lock().expect("nobody panics with it")["success"];
    assert!(done > half && count(&swarm.holds) > wanted / 4, "{text}");
    for node in &swarm.nodes {
        let daemons = node.processes().into_iter().filter(|p| p.command.contains("s3fs"));
        assert_eq!(daemons.count(), 0, "a daemon serves nobody");
    }
}

#[test]
fn with_the_ledger_on_each_node_nobody_loses_a_mount() {
    swarm(Topology::Node, if is_long_run() { 10_000 } else { 1500 });
}

#[test]
fn with_the_ledger_at_the_callers_nobody_loses_a_mount() {
    swarm(Topology::Client, if is_long_run() { 5_000 } else { 800 });
}
