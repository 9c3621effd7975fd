//! What the pages promise: which answers a caller may get, and who uses what afterwards.
//!
//! It knows no process and no file. What a crash leaves open stays open here, until an answer or
//! the ledger's own list tells.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::script::{Pair, TARGETS};

/// Whether a job uses a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    In,
    Out,
    /// Its request was cut: either is right.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Mount,
    Unmount,
}

/// What became of a request, as far as its caller and the journal know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has just been made, or nothing of it is on record.
    Unheard,
    /// It was cut, and what is left of its pipeline may still be at it.
    Open,
    /// It was cut between plan and record. `unsettled`: nothing has been made sure since.
    Cut { unsettled: bool },
    /// It is on record with this answer; `None`: a success that nobody has seen.
    Recorded(Option<Value>),
}

/// A request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) pair: Pair,
    pub(crate) action: Action,
    pub(crate) fate: Fate,
    /// Whether it was ever on record as a success.
    has_succeeded: bool,
    /// When the ledger first heard of it, in the order of all requests.
    first_heard: usize,
}

/// What is known of a target beside its jobs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    /// Its daemon was killed, and nobody has looked after it since.
    pub(crate) killed: bool,
    /// Something may be mounted although no job uses it.
    pub(crate) left: bool,
}

/// What is promised, and what is left open.
#[derive(Debug, Default)]
pub(crate) struct Model {
    standing: BTreeMap<Pair, Standing>,
    pub(crate) requests: Vec<Request>,
    pub(crate) targets: [Target; TARGETS],
    /// Who takes part in the step that runs: the requests, by number.
    running: BTreeSet<usize>,
    /// An operator reconciles beside them.
    reconciling: bool,
    clock: usize,
}

/// What was not as promised.
pub(crate) type Verdict = Result<(), String>;

impl Model {
    pub(crate) fn standing(&self, pair: Pair) -> Standing {
        self.standing.get(&pair).copied().unwrap_or(Standing::Out)
    }

    /// The jobs of a target that stand like this.
    pub(crate) fn who(&self, target: usize, standing: Standing) -> Vec<Pair> {
        let is_such = |(pair, is): &(&Pair, &Standing)| pair.target == target && **is == standing;
        self.standing.iter().filter(is_such).map(|(pair, _)| *pair).collect()
    }

    /// The jobs that have the target mounted, whatever the requests of this step come to.
    pub(crate) fn holders(&self, target: usize) -> Vec<Pair> {
        let mut holders = self.who(target, Standing::In);
        holders.retain(|pair| self.part(*pair) != Some(Action::Unmount));
        if self.targets[target].killed { Vec::new() } else { holders }
    }

    /// Whether certainly nothing is mounted.
    pub(crate) fn is_gone(&self, target: usize) -> bool {
        !self.targets[target].left
            && self.who(target, Standing::In).is_empty()
            && self.who(target, Standing::Unknown).is_empty()
    }

    /// A new request; its number.
    pub(crate) fn ask(&mut self, action: Action, pair: Pair) -> usize {
        self.requests.push(Request {
            pair,
            action,
            fate: Fate::Unheard,
            has_succeeded: false,
            first_heard: 0,
        });
        self.requests.len() - 1
    }

    /// These requests run at the same time from now on, and nothing else.
    pub(crate) fn begin(&mut self, running: &[usize], reconciling: bool) {
        self.running = running.iter().copied().collect();
        for number in running {
            self.clock += 1;
            let request = &mut self.requests[*number];
            if request.fate == Fate::Unheard {
                request.first_heard = self.clock;
            }
        }
        self.reconciling = reconciling;
    }

    fn part(&self, pair: Pair) -> Option<Action> {
        let mut running = self.running.iter().map(|number| &self.requests[*number]);
        running.find(|request| request.pair == pair).map(|request| request.action)
    }

    /// The requests for the target of which nobody knows how far they got.
    pub(crate) fn cut_requests(&self, target: usize) -> Vec<usize> {
        let is_cut = |request: &Request| matches!(request.fate, Fate::Cut { .. });
        let requests = self.requests.iter().enumerate();
        let cut = requests.filter(|(_, r)| r.pair.target == target && is_cut(r));
        cut.map(|(number, _)| number).collect()
    }

    /// Whether nobody else is at the target in this step.
    fn is_alone(&self, pair: Pair) -> bool {
        let here = |number: &&usize| self.requests[**number].pair.target == pair.target;
        let is_cut =
            |request: &Request| request.pair.target == pair.target && request.fate == Fate::Open;
        !self.reconciling
            && self.running.iter().filter(here).count() == 1
            && !self.requests.iter().any(is_cut)
    }

    /// How many other jobs may be using the target when it comes to this one's turn.
    fn others(&self, pair: Pair) -> (u64, u64) {
        let mut pairs: BTreeSet<Pair> = self.standing.keys().copied().collect();
        pairs.extend(self.running.iter().map(|number| self.requests[*number].pair));
        let others = pairs.iter().filter(|o| o.target == pair.target && o.job != pair.job);
        others.fold((0, 0), |(least, most), other| {
            let part = self.part(*other);
            match (self.standing(*other), part) {
                (Standing::In, None | Some(Action::Mount)) => (least + 1, most + 1),
                (Standing::Out, None) => (least, most),
                _ => (least, most + 1),
            }
        })
    }

    /// May this be the answer?
    pub(crate) fn check(&self, number: usize, answer: &Value) -> Verdict {
        let Request { pair, action, fate, .. } = &self.requests[number];
        let allowed = match (fate, action) {
            (Fate::Recorded(recorded), _) if is_final(*action, recorded.as_ref()) => {
                return self.check_recorded(recorded.as_ref(), answer);
            }
            (Fate::Recorded(_), _) => self.by_standing(*pair, "success", "stale"),
            (Fate::Cut { .. }, _) if self.has_gone_on(number) => vec!["stale"],
            (_, Action::Mount) => vec!["success"],
            (_, Action::Unmount) => self.leaving(*pair),
        };
        let word = word(answer);
        if !allowed.contains(&word) {
            return Err(format!("{allowed:?} was promised"));
        }
        match (action, word) {
            // It may have been carried out some steps ago.
            (Action::Unmount, _) if *fate == Fate::Open => Ok(()),
            (Action::Mount, "success") => self.check_mounted(*pair, answer),
            (Action::Unmount, "success") => self.check_left(*pair, answer),
            (Action::Unmount, "no_active_mount") => self.check_count(*pair, answer),
            _ => Ok(()),
        }
    }

    fn by_standing(
        &self,
        pair: Pair,
        is_in: &'static str,
        is_out: &'static str,
    ) -> Vec<&'static str> {
        match self.standing(pair) {
            Standing::In => vec![is_in],
            Standing::Out => vec![is_out],
            Standing::Unknown => vec![is_in, is_out],
        }
    }

    /// A job that does not use the target is told so, unless an operation of it is unsettled.
    fn leaving(&self, pair: Pair) -> Vec<&'static str> {
        let mut allowed = self.by_standing(pair, "success", "no_active_mount");
        let is_open = |request: &Request| {
            request.pair == pair && request.fate == (Fate::Cut { unsettled: true })
        };
        if self.standing(pair) == Standing::Out && self.requests.iter().any(is_open) {
            // Who makes sure of the target beside it settles the operation.
            if self.is_alone(pair) {
                allowed.clear();
            }
            allowed.push("success");
        }
        allowed
    }

    /// Whether a later operation of the job on the target has succeeded.
    fn has_gone_on(&self, number: usize) -> bool {
        let Request { pair, first_heard, .. } = self.requests[number];
        let is_later = |later: &Request| later.pair == pair && later.first_heard > first_heard;
        self.requests.iter().any(|later| is_later(later) && later.has_succeeded)
    }

    /// What is on record is answered again, word for word.
    fn check_recorded(&self, recorded: Option<&Value>, answer: &Value) -> Verdict {
        let Some(recorded) = recorded else {
            return want("status", answer, &Value::from("success"));
        };
        for field in ["status", "error_code", "error_msg", "unmounted", "active_mounts_remaining"] {
            if !recorded[field].is_null() {
                want(field, answer, &recorded[field])?;
            }
        }
        Ok(())
    }

    fn check_mounted(&self, pair: Pair, answer: &Value) -> Verdict {
        if answer["physically_mounted"] == answer["reused_existing"] {
            return Err("it was either mounted or there".to_owned());
        }
        if !self.holders(pair.target).is_empty() {
            return want("physically_mounted", answer, &false.into());
        }
        if self.is_gone(pair.target) && self.is_alone(pair) {
            return want("physically_mounted", answer, &true.into());
        }
        Ok(())
    }

    fn check_left(&self, pair: Pair, answer: &Value) -> Verdict {
        want("unmounted", answer, &(answer["active_mounts_remaining"] == 0).into())?;
        self.check_number(pair, answer)
    }

    fn check_count(&self, pair: Pair, answer: &Value) -> Verdict {
        want("unmounted", answer, &false.into())?;
        self.check_number(pair, answer)
    }

    fn check_number(&self, pair: Pair, answer: &Value) -> Verdict {
        let (least, most) = self.others(pair);
        match answer["active_mounts_remaining"].as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(()),
            number => Err(format!("{least} to {most} jobs are left, not {number:?}")),
        }
    }

    /// The answers of the step are in; `None`: there was none, since the pipeline was cut.
    /// `haunted`: what is left of a cut pipeline may still carry the request out.
    pub(crate) fn end(&mut self, answers: &[(usize, Option<Value>)], haunted: &[usize]) {
        for (number, answer) in answers {
            if let Some(answer) = answer {
                self.take(*number, answer);
            }
        }
        let lost = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(number, _)| number);
        for number in lost.chain(haunted) {
            self.lose(*number);
        }
        self.begin(&[], false);
    }

    /// The target is as the ledger has it.
    pub(crate) fn make_sure(&mut self, target: usize) {
        self.targets[target] = Target::default();
        for request in self.requests.iter_mut().filter(|request| request.pair.target == target) {
            if let Fate::Cut { unsettled } = &mut request.fate {
                *unsettled = false;
            }
        }
    }

    fn take(&mut self, number: usize, answer: &Value) {
        let Request { pair, action, fate, .. } = &self.requests[number];
        let (pair, action) = (*pair, *action);
        if matches!(fate, Fate::Recorded(recorded) if is_final(action, recorded.as_ref())) {
            // It was done long ago, and is not done again.
            return;
        }
        let standing = match (action, word(answer)) {
            (Action::Mount, "success") => Standing::In,
            (Action::Unmount, "success" | "no_active_mount") => Standing::Out,
            // Late: nothing was done, and nothing is recorded of it.
            _ => return,
        };
        self.standing.insert(pair, standing);
        if standing == Standing::In || answer["unmounted"] == true {
            self.make_sure(pair.target);
        }
        self.record(number, Fate::Recorded(Some(answer.clone())));
    }

    /// What the journal has of a request.
    pub(crate) fn record(&mut self, number: usize, fate: Fate) {
        let request = &mut self.requests[number];
        request.has_succeeded |= match &fate {
            Fate::Recorded(answer) => answer.as_ref().is_none_or(|a| word(a) == "success"),
            Fate::Unheard | Fate::Open | Fate::Cut { .. } => false,
        };
        request.fate = fate;
    }

    /// Nobody knows how it went, or goes.
    fn lose(&mut self, number: usize) {
        let Request { pair, action, .. } = self.requests[number];
        match (action, self.standing(pair)) {
            // It may change nothing, but it cannot take away what the job has, or give what it
            // does not ask for.
            (Action::Mount, Standing::In) | (Action::Unmount, Standing::Out) => {}
            _ => drop(self.standing.insert(pair, Standing::Unknown)),
        }
        self.targets[pair.target].left = true;
        self.requests[number].fate = Fate::Open;
    }

    /// A cut request was taken over: no binding is made of a mount, and an unmount's is released.
    pub(crate) fn take_over(&mut self, number: usize) {
        let pair = self.requests[number].pair;
        if self.standing(pair) == Standing::Unknown {
            self.standing.insert(pair, Standing::Out);
        }
    }

    /// An operator lets the job go. What is left of its own request may bind it again.
    pub(crate) fn release(&mut self, pair: Pair, is_haunted: bool) {
        if !is_haunted {
            self.standing.insert(pair, Standing::Out);
        }
        self.targets[pair.target].left = true;
    }

    /// The ledger's list of who uses the target. It tells of those, too, that nobody knew of.
    pub(crate) fn see(&mut self, target: usize, jobs: &[i64], haunted: &[Pair]) -> Verdict {
        let listed: BTreeSet<i64> = jobs.iter().copied().collect();
        for pair in self.who(target, Standing::In) {
            if !listed.contains(&pair.job.into()) {
                return Err(format!("job {} is not in the list {jobs:?}", pair.job));
            }
        }
        let unknown = self.who(target, Standing::Unknown);
        for job in &listed {
            let pair = Pair { job: i32::try_from(*job).unwrap_or_default(), target };
            if self.standing(pair) == Standing::Out {
                return Err(format!("job {job} is in the list {jobs:?}, and was out"));
            }
        }
        for pair in unknown.into_iter().filter(|pair| !haunted.contains(pair)) {
            let is_in = listed.contains(&pair.job.into());
            self.standing.insert(pair, if is_in { Standing::In } else { Standing::Out });
        }
        Ok(())
    }
}

/// Whether the answer on record is given again as it stands: a mount is looked at once more.
fn is_final(action: Action, recorded: Option<&Value>) -> bool {
    action == Action::Unmount || recorded.is_some_and(|recorded| word(recorded) != "success")
}

/// "success", or the error's code.
pub(crate) fn word(answer: &Value) -> &str {
    match answer["status"].as_str() {
        Some("success") => "success",
        _ => answer["error_code"].as_str().unwrap_or("no code"),
    }
}

fn want(field: &str, answer: &Value, value: &Value) -> Verdict {
    if answer[field] == *value {
        return Ok(());
    }
    Err(format!("{field} should be {value}"))
}
