//! What may happen on a node, as a list of steps: made by chance, or written down.
//!
//! A step is printed as the expression that makes it, so that a script that failed can be put into
//! a test as it stands.

use std::fmt;

use proptest::prelude::*;
use proptest::{collection, option, sample};

/// How many targets there are; they are numbered from 0.
pub(crate) const TARGETS: usize = 2;
/// The jobs; some ask more often, and so have more of a history.
const JOBS: [i32; 8] = [1, 1, 1, 2, 2, 3, 4, 5];
/// How many controllers share the ledger, each with locks of its own.
pub(crate) const CONTROLLERS: usize = 3;

/// A job and a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) job: i32,
    pub(crate) target: usize,
}

const VICTIMS: [Victim; 7] = [
    Victim::Lock,
    Victim::Sh,
    Victim::Plan,
    Victim::Mount,
    Victim::Commit,
    Victim::All,
    Victim::Late,
];

/// What a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Mount(Pair),
    Unmount(Pair),
    /// An earlier request once more, with the id that it had: the last one, or so many before it.
    Again(usize),
}

/// What kill -9 hits; or what is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Lock,
    Sh,
    Plan,
    Mount,
    Commit,
    All,
    /// Nobody is killed: the act stage gets its plan only after the other requests of the step are
    /// done, and its lease is over by then, so that it is taken for dead.
    Late,
}

/// A kill in the middle of a request: how far in it, in percent of what it usually takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) victim: Victim,
    pub(crate) percent: u32,
}

impl Cut {
    pub(crate) fn is_late(self) -> bool {
        self.victim == Victim::Late
    }
}

/// A request, and what happens to its pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) what: What,
    pub(crate) cut: Option<Cut>,
}

/// What happens, all that is in it at the same time.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Requests, by one controller each, the first of them by this one; and an operator beside
    /// them who reconciles.
    Requests { first: usize, acts: Vec<Act>, reconcile: bool },
    /// The daemon of a target dies.
    KillDaemon(usize),
    /// An operator lets a job go.
    Release(Pair),
    /// An operator reconciles.
    Reconcile,
}

impl Victim {
    /// Whether it is this stage.
    pub(crate) fn is(self, stage: &str) -> bool {
        matches!(
            (self, stage),
            (Victim::All, _)
                | (Victim::Lock, "lock")
                | (Victim::Sh, "sh")
                | (Victim::Plan, "plan")
                | (Victim::Mount, "mount")
                | (Victim::Commit, "commit")
        )
    }
}

pub(crate) fn mount(job: i32, target: usize) -> Act {
    Act { what: What::Mount(Pair { job, target }), cut: None }
}

pub(crate) fn unmount(job: i32, target: usize) -> Act {
    Act { what: What::Unmount(Pair { job, target }), cut: None }
}

pub(crate) fn again(ago: usize) -> Act {
    Act { what: What::Again(ago), cut: None }
}

impl Act {
    pub(crate) fn cut(self, victim: Victim, percent: u32) -> Act {
        Act { cut: Some(Cut { victim, percent }), ..self }
    }
}

pub(crate) fn requests<const N: usize>(first: usize, acts: [Act; N]) -> Step {
    Step::Requests { first, acts: acts.to_vec(), reconcile: false }
}

impl Step {
    /// With an operator who reconciles at the same time.
    pub(crate) fn beside_reconcile(self) -> Step {
        match self {
            Step::Requests { first, acts, .. } => Step::Requests { first, acts, reconcile: true },
            other => other,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Mount(Pair { job, target }) => write!(f, "mount({job}, {target})")?,
            What::Unmount(Pair { job, target }) => write!(f, "unmount({job}, {target})")?,
            What::Again(ago) => write!(f, "again({ago})")?,
        }
        match self.cut {
            Some(Cut { victim, percent }) => write!(f, ".cut(Victim::{victim:?}, {percent})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Requests { first, acts, reconcile } => {
                let acts: Vec<String> = acts.iter().map(Act::to_string).collect();
                write!(f, "requests({first}, [{}])", acts.join(", "))?;
                if *reconcile { f.write_str(".beside_reconcile()") } else { Ok(()) }
            }
            Step::KillDaemon(target) => write!(f, "Step::KillDaemon({target})"),
            Step::Release(pair) => write!(f, "Step::Release({pair:?})"),
            Step::Reconcile => f.write_str("Step::Reconcile"),
        }
    }
}

fn pairs() -> impl Strategy<Value = Pair> {
    (sample::select(JOBS.to_vec()), 0..TARGETS).prop_map(|(job, target)| Pair { job, target })
}

fn acts() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        4 => pairs().prop_map(What::Mount),
        4 => pairs().prop_map(What::Unmount),
        2 => (0..3_usize).prop_map(What::Again),
        1 => (0..30_usize).prop_map(What::Again),
    ];
    let cut = (sample::select(VICTIMS.to_vec()), 0..110_u32)
        .prop_map(|(victim, percent)| Cut { victim, percent });
    (what, option::weighted(0.3, cut)).prop_map(|(what, cut)| Act { what, cut })
}

/// Any step.
fn steps() -> impl Strategy<Value = Step> {
    let requests = |count| {
        (0..CONTROLLERS, collection::vec(acts(), count), prop::bool::weighted(0.1))
            .prop_map(|(first, acts, reconcile)| Step::Requests { first, acts, reconcile })
    };
    prop_oneof![
        8 => requests(1..=1),
        6 => requests(2..=CONTROLLERS),
        1 => (0..TARGETS).prop_map(Step::KillDaemon),
        1 => pairs().prop_map(Step::Release),
        1 => Just(Step::Reconcile),
    ]
}

/// Any script.
pub(crate) fn scripts() -> impl Strategy<Value = Vec<Step>> {
    collection::vec(steps(), 10..40)
}
