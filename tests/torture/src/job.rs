//! Jobs: each mounts, works for a while, and unmounts; some of them twice, some with dms-with.
//!
//! A job that was told yes has the mount until it begins to ask for the unmount. One whose request
//! has an unknown outcome asks again with the same id, and in the end asks for the unmount.

mod with;

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use dms_tests::Dice;
use serde_json::{Value, json};

use crate::ask::{Question, Told, Way};
use crate::clock::now;
use crate::node::Role;
use crate::target::{self, Kind};
use crate::witness;
use crate::world::World;

/// How often a mount is asked for before a job gives up.
const ATTEMPTS: u32 = 4;

/// How long after the end of all faults a job may still try to unmount, in seconds.
const PATIENCE: f64 = 90.0;

/// How long beyond its time a job may be at work on a pool until the pool is taken to hang, in seconds.
const HANGING: f64 = 45.0;

/// A job at one target.
struct Job<'a> {
    world: &'a World,
    number: i32,
    node: usize,
    target: String,
    round: u32,
}

/// One job after the other, until the end.
pub(crate) fn work(world: &World, worker: u32) {
    let options = &world.hub.options;
    let mut dice = Dice::new(options.seed.wrapping_mul(1000).wrapping_add(u64::from(worker)));
    for count in 0.. {
        if world.is_over() {
            break;
        }
        let node = usize::try_from(dice.below(world.nodes.len() as u64)).expect("small");
        let targets = target::of_node(options, &world.nodes[node]);
        let target = dice.below(targets.len() as u64);
        let target = targets[usize::try_from(target).expect("small")].clone();
        let number = i32::try_from(worker * 100_000 + count).expect("small");
        let mut job = Job { world, number, node, target, round: 0 };
        let way = match (world.nodes[node].role, dice.below(10)) {
            (Role::Act, _) => Some(Way::Client),
            (_, 0..=3) => Some(Way::Call),
            (_, 4..=6) => Some(Way::Pipe),
            _ => None,
        };
        for _ in 0..=dice.below(2) {
            match way {
                Some(way) => job.ask_and_work(way, &mut dice),
                None => job.work_with(&mut dice),
            }
            job.round += 1;
            if world.is_over() {
                break;
            }
        }
    }
}

/// What a job does between mount and unmount, in seconds, and whether it keeps a file open.
fn plan_work(dice: &mut Dice) -> (f64, bool) {
    let tenths = u32::try_from(3 + dice.below(25)).expect("small");
    (f64::from(tenths) / 10.0, dice.below(4) == 0)
}

impl Job<'_> {
    fn hold(&self) -> String {
        format!("j{}r{}", self.number, self.round)
    }

    fn ask_and_work(&self, way: Way, dice: &mut Dice) {
        let (seconds, is_open) = plan_work(dice);
        let told = self.mount(way, dice);
        let has_ended = told.is_none_or(|told| self.have(&told, seconds, is_open));
        // A job that was on the node went with it; whoever asked for it may be elsewhere.
        if has_ended || (way != Way::Pipe && dice.below(2) == 0) {
            self.unmount(way, dice);
        }
    }

    fn question(&self, way: Way, action: &'static str, attempt: u32) -> Question {
        let (node, target) = (self.node, self.target.clone());
        let id = format!("{}-{action}-{attempt}", self.hold());
        Question { way, node, target, job: self.number, action, id, hold: self.hold() }
    }

    /// Asks until it is told yes, or gives up.
    fn mount(&self, way: Way, dice: &mut Dice) -> Option<Told> {
        let mut attempt = 0;
        for _ in 0..ATTEMPTS {
            let question = self.question(way, "mount", attempt);
            let told = self.world.ask(&question);
            if told.is_success() {
                self.world.went_well(&question, &told);
                return Some(told);
            }
            if self.world.is_over() {
                break;
            }
            attempt += u32::from(!told.is_unknown());
            pause(dice);
        }
        None
    }

    /// Asks until it is told that it does not have the target any more.
    fn unmount(&self, way: Way, dice: &mut Dice) {
        let mut attempt = 0;
        let mut end = None;
        loop {
            let question = self.question(way, "unmount", attempt);
            let told = self.world.ask(&question);
            if told.is_success() {
                self.world.went_well(&question, &told);
            }
            if told.is_success() || told.word == "no_active_mount" {
                return;
            }
            if self.world.is_over() && now() > *end.get_or_insert(now() + PATIENCE) {
                self.say("stuck", json!({"word": told.word}));
                return;
            }
            attempt += u32::from(!told.is_unknown());
            pause(dice);
        }
    }

    fn say(&self, event: &str, more: Value) -> f64 {
        let mut fields = json!({"hold": self.hold(), "job": self.number,
            "node": self.world.nodes[self.node].name, "target": self.target});
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        self.world.hub.history.note(event, fields)
    }

    fn witness_args(&self, seconds: f64, is_open: bool) -> Vec<String> {
        let node = &self.world.nodes[self.node];
        let mut args = vec![
            "witness".to_owned(),
            node.data(&self.target).display().to_string(),
            self.hold(),
            self.log(),
            seconds.to_string(),
        ];
        args.extend(is_open.then(|| "--open".to_owned()));
        // A bucket has what was closed, a pool what was synced.
        let is_pool = Kind::of(&self.target) == Kind::Pool;
        args.extend(is_pool.then(|| "--sync".to_owned()));
        args
    }

    fn log(&self) -> String {
        self.world.nodes[self.node].path("logs").join(self.hold()).display().to_string()
    }

    /// The job has its mount, and works; whether it did so to its end, and not to its node's.
    fn have(&self, told: &Told, seconds: f64, is_open: bool) -> bool {
        let node = &self.world.nodes[self.node];
        self.say("hold", json!({"asked": told.asked, "told": told.at}));
        let boot = node.boot_number();
        let exe = std::env::current_exe().expect("/proc is there").display().to_string();
        let mut command = node.command(&exe, &self.witness_args(seconds, is_open));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.wait_for_end(&mut child.expect("it is this program"), boot, seconds);
        let seen = self.seen();
        self.say("left", json!({"ended": seen.ended.is_some()}));
        seen.ended.is_some()
    }

    /// Until the witness has ended. One whose pool hangs does not, but with its node.
    fn wait_for_end(&self, witness: &mut Child, boot: u32, seconds: f64) {
        let end = now() + seconds + HANGING;
        while matches!(witness.try_wait(), Ok(None)) {
            self.revive_after(end, boot);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn revive_after(&self, end: f64, boot: u32) {
        if Kind::of(&self.target) == Kind::Pool && now() > end {
            self.world.revive(&self.world.nodes[self.node], boot);
        }
    }

    /// What the witness has put down becomes part of the history.
    fn seen(&self) -> Seen {
        let mut seen = Seen { began: None, ended: None };
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        for line in text.lines() {
            let Ok(mut line) = serde_json::from_str::<Value>(line) else { continue };
            let t = line["t"].as_f64().unwrap_or_default();
            let event = line["event"].as_str().unwrap_or_default().to_owned();
            match &*event {
                witness::BEGIN => seen.began = Some(t),
                witness::END => seen.ended = Some(t),
                _ => {
                    line["hold"] = self.hold().into();
                    line["node"] = self.world.nodes[self.node].name.clone().into();
                    line["target"] = self.target.clone().into();
                    self.world.hub.history.note_at(t, &event, line);
                }
            }
        }
        let _ = fs::remove_file(self.log());
        seen
    }
}

/// When a witness began and ended.
struct Seen {
    began: Option<f64>,
    ended: Option<f64>,
}

fn pause(dice: &mut Dice) {
    thread::sleep(Duration::from_millis(100 + dice.below(500)));
}
