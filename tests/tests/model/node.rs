//! The real thing: a node, its controllers, and what is left of pipelines that were cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Lab, Process, Run, eventually, processes_with};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::promise::{Action, Request};
use crate::script::{CONTROLLERS, Cut, Victim};

/// What an operator runs.
pub(crate) const RECONCILE: &str = "dms-mount list | dms-ledger reconcile | dms-pipeline";

/// A pipeline that is kept running, with locks of its own.
struct Controller {
    pipeline: Filter,
    /// The stages of the filter that was cut, until they have ended.
    dying: Vec<Process>,
}

/// A request for a controller, and what is to become of its pipeline.
pub(crate) struct Order {
    /// The request's number in the model.
    pub(crate) number: usize,
    pub(crate) controller: usize,
    pub(crate) cut: Option<Cut>,
}

impl Order {
    pub(crate) fn is_late(&self) -> bool {
        self.cut.is_some_and(Cut::is_late)
    }
}

/// The stages of a pipeline that was cut while it had this request: they may still be at it.
struct Ghost {
    number: usize,
    target: String,
    stages: Vec<Process>,
}

pub(crate) struct Node {
    controllers: [Option<Controller>; CONTROLLERS],
    ghosts: Vec<Ghost>,
    /// How long a request takes here and now: a cut is to come within that time.
    usual: BTreeMap<&'static str, Duration>,
    pub(crate) kills: u64,
    pub(crate) writes: u64,
    pub(crate) lab: Lab,
}

/// A target's name.
pub(crate) fn name(target: usize) -> String {
    format!("t{target}")
}

/// The id of a request and of its operation.
pub(crate) fn operation(number: usize) -> String {
    format!("request-{number}")
}

impl Action {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Action::Mount => "mount",
            Action::Unmount => "unmount",
        }
    }
}

impl Node {
    pub(crate) fn new() -> Node {
        Node {
            controllers: [const { None }; CONTROLLERS],
            ghosts: Vec::new(),
            usual: BTreeMap::new(),
            kills: 0,
            writes: 0,
            lab: Lab::new(),
        }
    }

    fn locks(&self, controller: usize) -> String {
        self.lab.path(&format!("lock-{controller}")).display().to_string()
    }

    fn start(&self, controller: usize) -> Controller {
        let mut command = self.lab.pipeline_command();
        command.env("DMS_LOCK_DIR", self.locks(controller));
        Controller { pipeline: Filter::start(&mut command), dying: Vec::new() }
    }

    /// The controller, with nobody left of a filter that was cut. `whole`: all its stages run.
    fn ready(&mut self, controller: usize, whole: bool) -> (Controller, Vec<Process>) {
        let mut ready = match self.controllers[controller].take() {
            Some(running) => running,
            None => self.start(controller),
        };
        let was_cut = !ready.dying.is_empty();
        eventually("what was cut has ended", || !ready.dying.iter().any(Process::runs));
        ready.dying.clear();
        if !whole {
            return (ready, Vec::new());
        }
        if was_cut {
            ready.pipeline.end();
            ready = self.start(controller);
        }
        let mut stages = Vec::new();
        eventually("all stages run", || {
            stages = processes_with(&self.locks(controller));
            ["lock", "sh", "plan", "mount", "commit"]
                .iter()
                .all(|stage| stages.iter().any(|process| process.stage() == Some(stage)))
        });
        stages.retain(|process| process.stage().is_some());
        (ready, stages)
    }

    /// Carries the orders out at the same time, while a witness uses the targets `held`, and, if
    /// asked to, an operator reconciles.
    pub(crate) fn carry_out(
        &mut self,
        requests: &[Request],
        orders: &[Order],
        held: &[usize],
        reconcile: bool,
    ) -> Outcome {
        let tasks: Vec<Task<'_>> =
            orders.iter().map(|order| self.prepare(order, &requests[order.number])).collect();
        let (lab, written, stop) = (&self.lab, self.writes, AtomicBool::new(false));
        let (done, witnessed, reconciled) = thread::scope(|scope| {
            let witness = scope.spawn(|| witness_all(lab, held, written, &stop));
            let (late, others): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|task| task.order.is_late());
            let late: Vec<_> = late.into_iter().map(|task| task.hold_back(lab)).collect();
            let running: Vec<_> =
                others.into_iter().map(|task| scope.spawn(move || task.run())).collect();
            let reconciled = reconcile.then(|| lab.shell(RECONCILE));
            let mut done: Vec<_> = running
                .into_iter()
                .map(|task| task.join().expect("its controller takes requests"))
                .collect();
            done.extend(late.into_iter().map(Task::go_on));
            stop.store(true, Ordering::Relaxed);
            (done, witness.join().expect("it does not panic"), reconciled)
        });
        let mut answers = Vec::new();
        for (task, answer, time) in done {
            answers.push((task.order.number, answer.clone()));
            self.put_back(task, answer.is_some(), time);
        }
        let witnessed = witnessed.map(|writes| self.writes += writes);
        Outcome { answers, witnessed, reconciled }
    }

    fn prepare<'a>(&mut self, order: &'a Order, request: &'a Request) -> Task<'a> {
        let (controller, stages) = self.ready(order.controller, order.cut.is_some());
        let usual = self.usual.get(request.action.word()).copied();
        let usual = usual.unwrap_or(Duration::from_millis(25));
        let blow = order.cut.map(|cut| {
            let is_hit = |process: &&Process| process.stage().is_some_and(|s| cut.victim.is(s));
            let victims = stages.iter().filter(is_hit).cloned().collect();
            Blow { after: usual * cut.percent / 100, victims }
        });
        let line = self.line(order.number, request);
        Task { order, request, controller, stages, blow, line }
    }

    fn put_back(&mut self, task: Task<'_>, is_answered: bool, time: Duration) {
        let Task { order, request, mut controller, mut stages, .. } = task;
        let Some(cut) = order.cut else {
            self.usual.insert(request.action.word(), time);
            self.controllers[order.controller] = Some(controller);
            return;
        };
        self.kills += u64::from(!cut.is_late());
        stages.retain(|stage| stage.stage() != Some("lock") && !cut.is_late());
        if !is_answered {
            let (number, target) = (order.number, name(request.pair.target));
            self.ghosts.push(Ghost { number, target, stages: stages.clone() });
        } else if cut.victim == Victim::Sh {
            // Nobody misses it before the next request.
            stages.retain(|stage| stage.stage() == Some("sh"));
        }
        if cut.victim.is("lock") {
            controller.pipeline.end();
            controller = self.start(order.controller);
        }
        controller.dying = stages;
        self.controllers[order.controller] = Some(controller);
    }

    fn line(&self, number: usize, request: &Request) -> Value {
        let target = name(request.pair.target);
        let mut line = self.lab.request(request.action.word(), request.pair.job, &target);
        line["request_id"] = json!(operation(number));
        line
    }

    /// Whether what is left of a pipeline may still carry the request out.
    pub(crate) fn is_haunted(&self, number: usize) -> bool {
        self.ghosts.iter().any(|ghost| ghost.number == number)
    }

    /// The requests whose cut pipelines have ended meanwhile, and what the journal has of them.
    pub(crate) fn lay_ghosts(&mut self) -> Vec<(usize, Option<Value>)> {
        let mut laid = Vec::new();
        let lab = &self.lab;
        self.ghosts.retain(|ghost| {
            if ghost.stages.iter().any(Process::runs) {
                return true;
            }
            let id = operation(ghost.number);
            let row = lab.history(&ghost.target).into_iter().find(|row| row["operation"] == id);
            // A child of a stage may still have its life lock.
            let is_open = row.as_ref().is_some_and(|row| row["status"] == "pending");
            if !is_open {
                laid.push((ghost.number, row));
            }
            is_open
        });
        laid.retain(|(number, _)| !self.is_haunted(*number));
        laid
    }

    /// Kills the daemon of the target, if it has one.
    pub(crate) fn kill_daemon(&self, target: usize) {
        for daemon in self.lab.daemons(&name(target)) {
            daemon.signal(Signal::SIGKILL);
        }
        eventually("the daemon ends", || self.lab.daemons(&name(target)).is_empty());
    }
}

/// A kill that is to come.
struct Blow {
    after: Duration,
    victims: Vec<Process>,
}

/// A request that is about to be sent.
struct Task<'a> {
    order: &'a Order,
    request: &'a Request,
    controller: Controller,
    stages: Vec<Process>,
    blow: Option<Blow>,
    line: Value,
}

/// What came of some orders.
pub(crate) struct Outcome {
    /// The answers, by the request's number; `None` where there is none, or only that a stage was
    /// lost.
    pub(crate) answers: Vec<(usize, Option<Value>)>,
    /// What the witness found.
    pub(crate) witnessed: Result<(), String>,
    pub(crate) reconciled: Option<Run>,
}

impl<'a> Task<'a> {
    fn signal_act_stage(&self, signal: Signal) {
        for process in self.stages.iter().filter(|process| process.stage() == Some("mount")) {
            process.signal(signal);
        }
    }

    /// Has it planned, but not acted on, and its lease run out.
    fn hold_back(mut self, lab: &Lab) -> Task<'a> {
        self.signal_act_stage(Signal::SIGSTOP);
        self.controller.pipeline.tell(&self.line);
        let table = "backup_target_mount_operations";
        let it = format!("id = '{}'", operation(self.order.number));
        let planned =
            format!("SELECT COUNT(*) FROM {table} WHERE {it} AND (seq > 0 OR pending IS NULL)");
        eventually("it is planned", || lab.sql(&planned).trim() == "1");
        lab.sql(&format!("UPDATE {table} SET lease_until = 1 WHERE {it} AND pending = 1"));
        self
    }

    /// Lets it act, if it still may. To have been taken over is no answer.
    fn go_on(mut self) -> (Task<'a>, Option<Value>, Duration) {
        self.signal_act_stage(Signal::SIGCONT);
        let answer = self.controller.pipeline.answer_if_any();
        (self, answer.filter(|answer| answer["error_code"] != "stale"), Duration::ZERO)
    }

    fn run(mut self) -> (Task<'a>, Option<Value>, Duration) {
        let start = Instant::now();
        let pipeline = &mut self.controller.pipeline;
        pipeline.tell(&self.line);
        let Some(blow) = &self.blow else {
            let answer = pipeline.answer_if_any();
            return (self, answer, start.elapsed());
        };
        while start.elapsed() < blow.after {
            std::hint::spin_loop();
        }
        for victim in &blow.victims {
            victim.signal(Signal::SIGKILL);
        }
        let answer = pipeline.answer_if_any().filter(|answer| answer["error_code"] != "internal");
        (self, answer, start.elapsed())
    }
}

/// Somebody who uses a target: writes through the mount, and looks into the bucket.
pub(crate) fn witness(lab: &Lab, target: usize, number: u64) -> Result<(), String> {
    let target = name(target);
    let source = lab.mounted(&target);
    if source.as_deref() != Some(&*format!("dms:{target}/bucket")) {
        return Err(format!("{target} is not mounted for its jobs: {source:?}"));
    }
    let object = format!("witness-{target}");
    let (path, number) = (lab.mount_point(&target).join(&object), number.to_string());
    std::fs::write(&path, &number).map_err(|why| format!("no job can write to {target}: {why}"))?;
    match std::fs::read_to_string(lab.object(&object)) {
        Ok(arrived) if arrived == number => Ok(()),
        other => Err(format!("{number} was written to {target}, and the bucket has {other:?}")),
    }
}

/// Uses the targets in turn until it is told to stop; how often.
fn witness_all(
    lab: &Lab,
    targets: &[usize],
    before: u64,
    stop: &AtomicBool,
) -> Result<u64, String> {
    let mut writes = 0;
    while !targets.is_empty() && (writes == 0 || !stop.load(Ordering::Relaxed)) {
        for target in targets {
            writes += 1;
            witness(lab, *target, before + writes)?;
        }
    }
    Ok(writes)
}
