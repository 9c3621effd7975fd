//! This node: what it was told at its start, and one act at a time on each target.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dms_cli::{Context, Failure, Settings, boot_id};
use dms_flock::{Lock, Mode, Wait};
use dms_wire::{
    Action, Deadline, Decision, ErrorCode, Invalid, MountPath, Plan, Request, Response, TargetId,
    TargetType,
};

use crate::act::{Act, read_mounts};
use crate::failed::Failed;
use crate::mountinfo::Mounts;
use crate::nfs;
use crate::place::Place;
use crate::probe::{Depth, Trial};
use crate::run_dir::RunDir;
use crate::secrets::Secrets;
use crate::settings;
use crate::source::{Source, export_of, source_of};
use crate::umount::Policy;
use crate::{fence, mount, s3, unmount, zfs};

/// What does not change from request to request.
pub(crate) struct Node {
    pub(crate) id: String,
    /// Mounts do not outlive it.
    pub(crate) boot: String,
    pub(crate) bases: Vec<PathBuf>,
    mount_base: String,
    pub(crate) run_dir: RunDir,
    pub(crate) secrets: Secrets,
    pub(crate) s3: settings::S3,
    pub(crate) nfs: settings::Nfs,
    pub(crate) zfs: settings::Zfs,
    pub(crate) policy: Policy,
    /// How long one act may take.
    bound: Duration,
}

/// How targets of each type are mounted.
pub(crate) struct Types {
    pub(crate) s3: settings::S3,
    pub(crate) nfs: settings::Nfs,
    pub(crate) zfs: settings::Zfs,
}

/// What a request wants made, beyond what it wants undone.
enum Wanted {
    Mount(Source),
    Import(zfs::Wanted),
    Nothing,
}

impl Node {
    pub(crate) fn new(settings: Settings, types: Types, policy: Policy) -> Result<Self, Failure> {
        let run_dir = RunDir::open(&settings.run_dir)
            .context("unable to make run directory", settings.run_dir.display())?;
        Ok(Node {
            boot: boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?,
            mount_base: settings.mount_base().to_owned(),
            id: settings.node_id,
            bases: settings.mount_bases,
            run_dir,
            secrets: Secrets::new(settings.secret_dir, &settings.openstack)?,
            s3: types.s3,
            nfs: types.nfs,
            zfs: types.zfs,
            policy,
            bound: settings.request_timeout,
        })
    }

    /// Carries a request out, planned or not, and says how it went.
    pub(crate) fn carry_out(&self, request: &Request) -> Response {
        let answer = self.try_carry_out(request).unwrap_or_else(|why| {
            let answer = Response::error(why.code, dms_cli::plain(&why.text));
            if answer.error_code == Some(ErrorCode::Validation) {
                return answer;
            }
            let text = answer.error_msg.as_deref().unwrap_or_default();
            let what = match request.action {
                Some(Action::Unmount) => "Unmount failed",
                _ => "Mount failed",
            };
            let text = text.strip_prefix(what).map_or(text, |rest| rest.trim_start_matches(": "));
            log::error!("{what}: {}: {text}", request.target.id);
            answer
        });
        let plan = request.plan.clone().map(|plan| Plan { boot: Some(self.boot.clone()), ..plan });
        Response { plan, ..answer }
    }

    fn try_carry_out(&self, request: &Request) -> Result<Response, Failed> {
        let decision = self.check(request)?;
        let end = Deadline::after(self.bound);
        let until = request.deadline.map_or(end, |deadline| deadline.min(end));
        if until.passed() {
            return Err(Failed::new(ErrorCode::Timeout, "timeout: the deadline has passed"));
        }
        let path = self.path(request)?;
        if decision == Decision::Release {
            return Ok(Response::released());
        }
        let wanted = match decision {
            Decision::Mount if request.target.kind == Some(TargetType::Zfs) => {
                Wanted::Import(zfs::Wanted::of(request, &self.zfs)?)
            }
            Decision::Mount => Wanted::Mount(Source::of(&request.target)?),
            Decision::Unmount | Decision::Release => Wanted::Nothing,
        };
        // Checked before anything is touched, and again under the lock.
        let place = Place::find(&self.bases, &path)?;
        place.check(&*read_mounts()?)?;
        let act = self.begin(request, &wanted, place, until)?;
        let outcome = match wanted {
            Wanted::Import(wanted) => zfs::import(&act, &wanted, &path),
            Wanted::Mount(source) => {
                zfs::refuse_while_imported(&act).and_then(|()| mount::mount(&act, &source, &path))
            }
            Wanted::Nothing if zfs::is_asked_for(request, act.before.as_ref()) => {
                zfs::export(&act, &path, source_of(request))
            }
            Wanted::Nothing => unmount::unmount(&act, &path, request.target.kind),
        };
        outcome.map_err(|why| if until.passed() { why.after_the_deadline() } else { why })
    }

    /// What has to be done, if the request is for this node and its plan fits.
    fn check(&self, request: &Request) -> Result<Decision, Invalid> {
        let host = request.plan.as_ref().map(|plan| &plan.host).or(request.host.as_ref());
        if let Some(host) = host.filter(|host| host.as_str() != self.id) {
            return Err(Invalid::new(format!(
                "the request is for node {host}, this is {}",
                self.id
            )));
        }
        let Some(plan) = &request.plan else {
            return match request.action {
                Some(Action::Mount) => Ok(Decision::Mount),
                Some(Action::Unmount) => Ok(Decision::Unmount),
                Some(Action::Settle) => {
                    Err(Invalid::new("only a ledger knows what it is to settle: no plan"))
                }
                None => Err(Invalid::new("Missing required field: action")),
            };
        };
        let fits = plan.target == request.target.id
            && request.action.is_none_or(|action| action == plan.asked())
            && plan.is_consistent();
        if fits { Ok(plan.decision) } else { Err(Invalid::new("the plan is of another request")) }
    }

    /// The plan's path, the request's, or the default; of an unmount, the one on record before
    /// the default.
    fn path(&self, request: &Request) -> Result<MountPath, Invalid> {
        let target = &request.target;
        match (&request.plan, &target.path) {
            (Some(plan), _) => return Ok(plan.path.clone()),
            (None, Some(path)) => return Ok(path.clone()),
            (None, None) => {}
        }
        let recorded = match request.action {
            Some(Action::Unmount) => self.run_dir.load(&target.id).map(|record| record.path),
            _ => None,
        };
        let recorded = recorded.and_then(|path| path.into_os_string().into_string().ok());
        match recorded.and_then(|path| MountPath::try_from(path).ok()) {
            Some(path) => Ok(path),
            None => MountPath::default_for(&self.mount_base, &target.id),
        }
    }

    /// Where a target is mounted if nobody says otherwise.
    pub(crate) fn default_path(&self, target: &TargetId) -> PathBuf {
        Path::new(&self.mount_base).join(target.as_str())
    }

    /// An operator's act on a target, which waits no longer than this for another; `None`: another
    /// does not end.
    pub(crate) fn act<'a>(
        &'a self,
        target: &'a TargetId,
        path: &Path,
        wait: Duration,
    ) -> Result<Option<Act<'a>>, Failed> {
        let text = path.to_str().unwrap_or_default().to_owned();
        let place = Place::find(&self.bases, &MountPath::try_from(text)?)?;
        let Some(lock) = self.lock(target, wait)? else { return Ok(None) };
        let (mounts, until) = (read_mounts()?, Deadline::after(self.bound));
        let before = self.run_dir.load(target);
        Ok(Some(Act {
            node: self,
            target,
            token: None,
            is_settling: false,
            place,
            until,
            mounts,
            before,
            export: None,
            trial: Cell::new(None),
            lock,
        }))
    }

    /// `None`: somebody else has it for longer than this.
    fn lock(&self, target: &TargetId, wait: Duration) -> Result<Option<Lock>, Failed> {
        let file = self.run_dir.act_lock(target);
        Lock::take(&file, Mode::Exclusive, Wait::For(wait)).map_err(|why| {
            let what = format!("unable to lock {}", file.display());
            Failed::system(ErrorCode::Internal, &what, &why)
        })
    }

    /// Takes the target's act lock, and refuses a plan that a later one has overtaken.
    fn begin<'a>(
        &'a self,
        request: &'a Request,
        wanted: &Wanted,
        place: Place,
        until: Deadline,
    ) -> Result<Act<'a>, Failed> {
        let target = &request.target.id;
        let lock = self.lock(target, until.left())?.ok_or_else(|| {
            let text = format!("timeout: another act on {target} does not end");
            Failed::new(ErrorCode::Busy, text)
        })?;
        let mounts = read_mounts()?;
        let trial = match wanted {
            Wanted::Mount(_) => try_own(&mounts, target, &place),
            _ => None,
        };
        if let Some(plan) = &request.plan {
            let passed = fence::pass(&self.run_dir.fence(target), plan).map_err(|why| {
                Failed::system(ErrorCode::Internal, "unable to note the fence", &why)
            })?;
            if !passed {
                let text = format!("operation {} was overtaken by a later one", plan.operation);
                return Err(Failed::new(ErrorCode::Stale, text));
            }
        }
        place.check(&mounts)?;
        let act = Act {
            node: self,
            target,
            token: request.token.as_ref(),
            is_settling: request.plan.as_ref().is_some_and(|plan| plan.action == Action::Settle),
            place,
            until,
            mounts,
            before: self.run_dir.load(target),
            export: export_of(request),
            trial: Cell::new(trial),
            lock,
        };
        nfs::refuse_while_under_way(&act)?;
        Ok(act)
    }
}

/// Has a mount tried that says of itself that it is the target's: what else there is to be read takes as
/// long as the answer. Nobody else's is touched.
fn try_own(mounts: &Mounts, target: &TargetId, place: &Place) -> Option<Trial> {
    let own = mounts.at(place.path()).filter(|mount| s3::is_marked(mount, target))?;
    // Whoever needs to know asks again.
    Trial::begin(own, Depth::Daemon).ok()
}
