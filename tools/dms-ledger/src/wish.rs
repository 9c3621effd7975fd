//! What the ledger needs to know of a request, checked.

use dms_wire::{Action, Host, Invalid, MountPath, OperationId, Request, TargetId};

/// The job in the row of an operation that no job has asked for.
pub(crate) const NO_JOB: i32 = 0;

/// A request that says all that the ledger needs to know.
#[derive(Clone)]
pub(crate) struct Wish<'a> {
    pub(crate) request: &'a Request,
    pub(crate) action: Action,
    pub(crate) job: i32,
    pub(crate) host: &'a Host,
    pub(crate) target: &'a TargetId,
    pub(crate) id: OperationId,
    /// An id that no operation has yet.
    new_id: OperationId,
    /// Where the request wants it mounted; of an unmount, where the ledger says.
    pub(crate) path: MountPath,
}

impl<'a> Wish<'a> {
    /// Checks what the ledger requires: job, host and target, and of a mount what it needs.
    pub(crate) fn check(
        request: &'a Request,
        mount_base: &str,
        new_id: &str,
    ) -> Result<Self, Invalid> {
        let missing = |field: &str| Invalid::new(format!("Missing required field: {field}"));
        if request.plan.is_some() {
            return Err(Invalid::new("the request has a plan already: one ledger per request"));
        }
        if !request.has_room_for_plan() {
            return Err(Invalid::new("the request is longer than 1 MiB when it is written out"));
        }
        let action = request.action.ok_or_else(|| missing("action"))?;
        if action == Action::Mount {
            request.target.check_mountable()?;
        }
        let target = &request.target.id;
        let new_id = OperationId::try_from(new_id.to_owned())?;
        Ok(Wish {
            action,
            job: match action {
                Action::Mount | Action::Unmount => request.job.ok_or_else(|| missing("jobid"))?,
                Action::Settle => NO_JOB,
            },
            host: request.host.as_ref().ok_or_else(|| missing("host"))?,
            target,
            id: match &request.request_id {
                Some(id) => id.clone(),
                None => new_id.clone(),
            },
            new_id,
            path: match &request.target.path {
                Some(path) => path.clone(),
                None => MountPath::default_for(mount_base, target)?,
            },
            request,
        })
    }
    /// The same, as an operation of its own: what is on record of the request stays there.
    pub(crate) fn anew(&self) -> Self {
        Wish { id: self.new_id.clone(), ..self.clone() }
    }
}
