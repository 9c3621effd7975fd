//! What `dms-ledger plan` decided, carried through the act stage to `dms-ledger commit`.

use serde::{Deserialize, Serialize};

use crate::{Access, Action, Host, MountPath, OperationId, Owner, TargetId, TargetType};

/// What the act stage has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Make sure that the target is mounted, whoever else uses it.
    Mount,
    /// Unmount it: nobody else uses it.
    Unmount,
    /// Touch nothing: the job leaves, others stay.
    Release,
}

/// All that `commit` needs to record the outcome, and all that the act stage needs to know whether
/// it may act. It carries no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The journal's row of this operation; the request's id where it has one.
    pub operation: OperationId,
    /// Which ledger decided: fences of two ledgers cannot be compared.
    pub ledger: String,
    /// The fence: one more than that of any earlier plan for this target on this host.
    pub seq: u64,
    /// The job that asked; 0 for [`Action::Settle`], which no job asks.
    pub job: i32,
    /// The target.
    pub target: TargetId,
    /// The node that has to act.
    pub host: Host,
    /// Where.
    pub path: MountPath,
    /// The target's type, if it is known: from the request, or from the job's binding.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<TargetType>,
    /// The secret's reference, the export or the pool: what is mounted there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// ZFS: how the pool has to be imported; on the way back, how it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<Access>,
    /// What was asked.
    pub action: Action,
    /// What has to be done.
    pub decision: Decision,
    /// An unmount: how many other jobs use the target there, if that was looked at; it is counted to 100.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub others: Option<u64>,
    /// Which boot of the node acted, as the node says: what is mounted does not outlive it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot: Option<String>,
    /// A mount: who keeps the job's use of the target, if that can be seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<Owner>,
}

impl Plan {
    /// What the node is asked. It need not know what it is to settle a target: the decision says
    /// whether that is to mount or to unmount it.
    pub fn asked(&self) -> Action {
        match (self.action, self.decision) {
            (Action::Settle, Decision::Mount) => Action::Mount,
            (Action::Settle, Decision::Unmount | Decision::Release) => Action::Unmount,
            (action, _) => action,
        }
    }

    /// Whether the decision is one that the action can come to.
    pub fn is_consistent(&self) -> bool {
        match self.action {
            Action::Mount => self.decision == Decision::Mount,
            Action::Unmount => self.decision != Decision::Mount,
            Action::Settle => self.decision != Decision::Release,
        }
    }
}
