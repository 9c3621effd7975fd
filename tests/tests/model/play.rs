//! A script on a real node, held against the model after each step.

use std::collections::BTreeSet;

use dms_tests::eventually;
use serde_json::{Value, json};

use crate::node::{Node, Order, Outcome, RECONCILE, name, operation, witness};
use crate::promise::{Action, Fate, Model, Standing, Verdict, word};
use crate::script::{Act, CONTROLLERS, Cut, Pair, Step, TARGETS, What};

/// What happened, in numbers.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) scripts: u64,
    pub(crate) steps: u64,
    pub(crate) requests: u64,
    pub(crate) kills: u64,
    pub(crate) unanswered: u64,
    pub(crate) repeats: u64,
    pub(crate) reconciles: u64,
    pub(crate) physical: u64,
    pub(crate) writes: u64,
}

/// Plays the script to its end; what was not as promised.
pub(crate) fn play(steps: &[Step], figures: &mut Figures) -> Result<(), String> {
    let mut play = Play { node: Node::new(), model: Model::default(), figures };
    for (number, step) in steps.iter().enumerate() {
        play.figures.steps += 1;
        play.step(step)
            .and_then(|()| play.look_around())
            .map_err(|why| format!("step {number}, {step:?}: {why}"))?;
    }
    play.end().map_err(|why| format!("after the last step: {why}"))?;
    play.figures.scripts += 1;
    play.figures.kills += play.node.kills;
    play.figures.writes += play.node.writes;
    Ok(())
}

struct Play<'a> {
    node: Node,
    model: Model,
    figures: &'a mut Figures,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Requests { first, acts, reconcile } => self.requests(*first, acts, *reconcile),
            Step::KillDaemon(target) => {
                // What is left of a pipeline may just be starting one.
                self.wait_for_ghosts(|pair| pair.target == *target)?;
                self.node.kill_daemon(*target);
                self.model.targets[*target].killed = true;
                Ok(())
            }
            Step::Release(pair) => {
                let (job, target) = (pair.job.to_string(), name(pair.target));
                let host = self.node.lab.node.clone();
                let args = ["release", "--job-id", &job, "--target-id", &target, "--host", &host];
                self.node.lab.feed("dms-ledger", &args, "").expect(0);
                let is_haunted = self.haunted().contains(pair);
                self.model.release(*pair, is_haunted);
                Ok(())
            }
            Step::Reconcile => self.reconcile(),
        }
    }

    fn requests(&mut self, first: usize, acts: &[Act], reconcile: bool) -> Result<(), String> {
        let orders = self.orders(first, acts)?;
        let numbers: Vec<usize> = orders.iter().map(|order| order.number).collect();
        self.model.begin(&numbers, reconcile);
        let held: Vec<usize> =
            (0..TARGETS).filter(|t| !self.model.holders(*t).is_empty()).collect();
        let outcome = self.node.carry_out(&self.model.requests, &orders, &held, reconcile);
        let Outcome { answers, witnessed, reconciled } = outcome;
        self.figures.reconciles += u64::from(reconciled.is_some());
        for (number, answer) in &answers {
            let Some(answer) = answer else {
                self.figures.unanswered += 1;
                continue;
            };
            self.figures.physical += u64::from(answer["physically_mounted"] == true);
            let request = &self.model.requests[*number];
            self.model
                .check(*number, answer)
                .map_err(|why| format!("{why}\nrequest {number}: {request:?}\nanswer: {answer}"))?;
        }
        witnessed?;
        self.nobody_came_too_late(&orders, &answers)?;
        let haunted: Vec<usize> =
            (0..self.model.requests.len()).filter(|n| self.node.is_haunted(*n)).collect();
        self.model.end(&answers, &haunted);
        Ok(())
    }

    /// The acts as orders: each job once, by controllers of their own. A job whose last request was
    /// cut waits for the end of that pipeline, unless it repeats just that.
    fn orders(&mut self, first: usize, acts: &[Act]) -> Result<Vec<Order>, String> {
        let mut taken = BTreeSet::new();
        let mut orders = Vec::new();
        for (place, act) in acts.iter().enumerate() {
            let known = self.model.requests.len();
            let (action, pair, repeated) = match act.what {
                What::Mount(pair) => (Action::Mount, pair, None),
                What::Unmount(pair) => (Action::Unmount, pair, None),
                What::Again(_) if known == 0 => continue,
                What::Again(ago) => {
                    let number = known - 1 - ago % known;
                    let request = &self.model.requests[number];
                    (request.action, request.pair, Some(number))
                }
            };
            if !taken.insert(pair) {
                continue;
            }
            let mine: Vec<usize> = (0..known)
                .filter(|n| self.node.is_haunted(*n) && self.model.requests[*n].pair == pair)
                .collect();
            if mine.iter().any(|number| Some(*number) != repeated) {
                self.wait_for_ghosts(|other| other == pair)?;
            }
            self.figures.requests += 1;
            self.figures.repeats += u64::from(repeated.is_some());
            // What is to be late must be new, so that one can see when it is planned.
            let cut = act.cut.filter(|cut| repeated.is_none() || !cut.is_late());
            if cut.is_some_and(Cut::is_late) {
                self.wait_for_ghosts(|_| true)?;
            }
            let number = repeated.unwrap_or_else(|| self.model.ask(action, pair));
            let controller = (first + place) % CONTROLLERS;
            orders.push(Order { number, controller, cut });
        }
        Ok(orders)
    }

    fn reconcile(&mut self) -> Result<(), String> {
        self.figures.reconciles += 1;
        let haunted = self.haunted();
        let run = self.node.lab.shell(RECONCILE);
        let all_well = run.code == 0 && run.lines().iter().all(|answer| word(answer) == "success");
        if !all_well {
            return Err(format!("reconciling failed: {run}"));
        }
        for target in 0..TARGETS {
            if !haunted.iter().any(|pair| pair.target == target) {
                self.model.make_sure(target);
            }
        }
        Ok(())
    }

    /// The jobs whose cut pipelines may still be at it.
    fn haunted(&self) -> Vec<Pair> {
        let requests = self.model.requests.iter().enumerate();
        let haunted = requests.filter(|(number, _)| self.node.is_haunted(*number));
        haunted.map(|(_, request)| request.pair).collect()
    }

    /// What was cut and has ended meanwhile is as the journal has it. It may have made sure of the
    /// target, and so settled what was cut before.
    fn lay_ghosts(&mut self) {
        let laid = self.node.lay_ghosts();
        let targets: BTreeSet<usize> =
            laid.iter().map(|(number, _)| self.model.requests[*number].pair.target).collect();
        for (number, row) in laid {
            self.model.record(number, fate(row.as_ref()));
            let message = row.as_ref().and_then(|row| row["message"].as_str());
            if message.is_some_and(|message| message.contains("the pipeline ended")) {
                self.model.take_over(number);
            }
        }
        for target in targets {
            let rows = self.node.lab.history(&name(target));
            for number in self.model.cut_requests(target) {
                let row = rows.iter().find(|row| row["operation"] == operation(number));
                self.model.record(number, fate(row));
            }
        }
    }

    fn wait_for_ghosts(&mut self, of: impl Fn(Pair) -> bool) -> Verdict {
        eventually("what was cut has ended", || {
            self.lay_ghosts();
            !self.haunted().into_iter().any(&of)
        });
        self.see()
    }

    /// Holds the ledger's list against the model.
    fn see(&mut self) -> Result<(), String> {
        let haunted = self.haunted();
        for target in 0..TARGETS {
            let users = self.node.lab.users(&name(target));
            self.model.see(target, &users, &haunted)?;
        }
        Ok(())
    }

    /// Holds the ledger and the kernel against the model.
    fn look_around(&mut self) -> Result<(), String> {
        self.lay_ghosts();
        self.see()?;
        for target in 0..TARGETS {
            let lab = &self.node.lab;
            if !self.model.holders(target).is_empty() {
                self.node.writes += 1;
                witness(lab, target, self.node.writes)?;
            }
            let is_sure = !self.model.targets[target].left;
            let daemons = lab.daemons(&name(target));
            if self.model.is_gone(target) {
                gone(&self.node, target)?;
            } else if is_sure && daemons.len() > 1 {
                return Err(format!("more than one daemon: {daemons:?}"));
            }
        }
        Ok(())
    }

    /// Everything is settled; then all jobs leave.
    fn end(&mut self) -> Result<(), String> {
        self.wait_for_ghosts(|_| true)?;
        self.reconcile()?;
        self.look_around()?;
        let audit = self.node.lab.shell("dms-mount list | dms-ledger audit");
        if audit.code != 0 || !audit.stdout.is_empty() {
            return Err(format!("the audit found something: {audit}"));
        }
        for target in 0..TARGETS {
            let open = |row: &Value| row["status"] == "pending" || row["status"] == "unsettled";
            if let Some(row) = self.node.lab.history(&name(target)).into_iter().find(open) {
                return Err(format!("an operation was never settled: {row}"));
            }
            for pair in self.model.who(target, Standing::In) {
                let leave = Act { what: What::Unmount(pair), cut: None };
                self.requests(0, &[leave], false)?;
                self.look_around()?;
            }
            gone(&self.node, target)?;
        }
        Ok(())
    }

    /// Whoever plans takes over what is over and in the way: that must not be told yes any more.
    fn nobody_came_too_late(
        &self,
        orders: &[Order],
        answers: &[(usize, Option<Value>)],
    ) -> Verdict {
        let is_late = |number| orders.iter().any(|order| order.number == number && order.is_late());
        let succeeded = |(_, answer): &&(usize, Option<Value>)| {
            answer.as_ref().is_some_and(|answer| word(answer) == "success")
        };
        let (late, others): (Vec<_>, Vec<_>) =
            answers.iter().filter(succeeded).partition(|(number, _)| is_late(*number));
        let target = |number: usize| self.model.requests[number].pair.target;
        for (late, _) in late {
            if let Some((other, _)) =
                others.iter().find(|(other, _)| target(*other) == target(*late))
            {
                return Err(format!("request {late} was over when request {other} began"));
            }
        }
        Ok(())
    }
}

/// What a request came to whose pipeline was cut, as the journal has it.
fn fate(row: Option<&Value>) -> Fate {
    let Some(row) = row else { return Fate::Unheard };
    let refused = "No active mount found for this job";
    match row["status"].as_str() {
        Some("success") => Fate::Recorded(None),
        Some("unsettled") => Fate::Cut { unsettled: true },
        _ if row["message"] == refused => {
            let answer = json!({"status": "error", "error_code": "no_active_mount"});
            Fate::Recorded(Some(answer))
        }
        _ => Fate::Cut { unsettled: false },
    }
}

/// Nothing is left of the target.
fn gone(node: &Node, target: usize) -> Result<(), String> {
    let (lab, name) = (&node.lab, name(target));
    let mounted = lab.mounted(&name);
    let daemons = lab.daemons(&name);
    let is_left = lab.mount_point(&name).exists();
    if mounted.is_none() && daemons.is_empty() && !is_left {
        return Ok(());
    }
    Err(format!(
        "nobody uses {name}: mounted {mounted:?}, daemons {daemons:?}, mount point left: {is_left}"
    ))
}
