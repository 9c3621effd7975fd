//! This node: what it was told at its start, and one act at a time on each target.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dms_cli::{Context, Failure, Settings, boot_id};
use dms_flock::{Lock, Mode, Wait};
use dms_wire::{
    Action, Deadline, Decision, ErrorCode, Invalid, MountPath, Plan, Request, Response, Secret,
    TargetId,
};

use crate::daemon::{self, Identity};
use crate::mountinfo::{Mount, Mounts};
use crate::nfs::{self, Export};
use crate::place::{Place, Unfit};
use crate::record::{Record, RunDir};
use crate::secrets::Secrets;
use crate::settings;
use crate::source::{Source, export_of};
use crate::umount::Policy;
use crate::{mount, s3, unmount};

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
    pub(crate) policy: Policy,
    /// How long one act may take.
    bound: Duration,
}

/// An act that failed: the word for programs, and the text for people.
#[derive(Debug)]
pub(crate) struct Failed {
    code: ErrorCode,
    text: String,
}

impl Failed {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Failed { code, text: text.into() }
    }

    /// A failure of this node's own files or processes.
    pub(crate) fn system(code: ErrorCode, what: &str, why: &std::io::Error) -> Self {
        Failed::new(code, format!("{what}: {why}"))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Invalid> for Failed {
    fn from(why: Invalid) -> Self {
        Failed::new(ErrorCode::Validation, why.0)
    }
}

/// An act under its lock: which target, where, how long, and which mounts there were.
pub(crate) struct Act<'a> {
    pub(crate) node: &'a Node,
    pub(crate) target: &'a TargetId,
    /// For the key manager.
    pub(crate) token: Option<&'a Secret>,
    /// No job asks: what is mounted again was mounted before.
    pub(crate) is_settling: bool,
    pub(crate) place: Place,
    pub(crate) until: Deadline,
    pub(crate) mounts: Mounts,
    /// The export that the request names, if it does.
    export: Option<Export>,
    /// Held until the act is over; mount(8) and umount(8) inherit it.
    pub(crate) lock: Lock,
}

impl Act<'_> {
    /// What the node remembers of the target now.
    pub(crate) fn record(&self) -> Option<Record> {
        self.node.run_dir.load(self.target)
    }

    /// Whether the mount is the target's own: it says so, or we remember having made it, or it is
    /// of the export that was asked for.
    pub(crate) fn is_ours(&self, mount: &Mount) -> bool {
        s3::is_marked(mount, self.target)
            || self.record().is_some_and(|record| record.has_made(mount))
            || self.has_daemon_at(mount)
            || self.is_of_export(mount)
    }

    /// Two targets may have one export, and still not one mount.
    fn is_of_export(&self, mount: &Mount) -> bool {
        let is_asked_for = mount.path == self.place.path()
            && self.export.as_ref().is_some_and(|export| nfs::is_of(mount, export));
        let is_of_another =
            |record: &Record| record.target != *self.target && record.has_made(mount);
        is_asked_for && !self.node.run_dir.records().iter().any(is_of_another)
    }

    /// The daemon of the target's mount: as recorded; or else as its environment says, or the
    /// Python server's; or as the PID file says, if that is true.
    pub(crate) fn daemon(&self) -> Option<Identity> {
        let path = self.place.path();
        // One of a mount elsewhere is none of this place's.
        let recorded = self.record().filter(|record| record.path == path);
        let recorded = recorded.and_then(|record| record.daemon);
        recorded
            .filter(Identity::is_alive)
            .or_else(|| s3::find_daemon(self.target, path))
            .or_else(|| daemon::serving(path, self.node.run_dir.pid_in_file(self.target)?))
    }

    /// Whether the daemon is one that we have started for this place, and nobody else's.
    pub(crate) fn has_started(&self, daemon: &Identity) -> bool {
        let path = self.place.path();
        let record = self.record().filter(|record| record.path == path);
        record.and_then(|record| record.daemon).as_ref() == Some(daemon)
            || s3::find_own_daemon(self.target, path).as_ref() == Some(daemon)
    }

    /// A program that does not let its mount be marked: then its daemon tells.
    fn has_daemon_at(&self, mount: &Mount) -> bool {
        mount.fstype.starts_with("fuse")
            && !mount.source.starts_with("dms:")
            && mount.path == self.place.path()
            && self.daemon().is_some()
    }
}

impl Node {
    pub(crate) fn new(
        settings: Settings,
        s3: settings::S3,
        nfs: settings::Nfs,
        policy: Policy,
    ) -> Result<Self, Failure> {
        let run_dir = RunDir::open(&settings.run_dir)
            .context("unable to make run directory", settings.run_dir.display())?;
        Ok(Node {
            boot: boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?,
            mount_base: settings.mount_base().to_owned(),
            id: settings.node_id,
            bases: settings.mount_bases,
            run_dir,
            secrets: Secrets::new(settings.secret_dir, &settings.openstack)?,
            s3,
            nfs,
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
            Decision::Mount => Some(Source::of(&request.target)?),
            Decision::Unmount | Decision::Release => None,
        };
        // Checked before anything is touched, and again under the lock.
        let place = Place::find(&self.bases, &path)?;
        place.check(&read_mounts()?)?;
        let act = self.begin(request, place, until)?;
        let outcome = match wanted {
            Some(source) => mount::mount(&act, &source, &path),
            None => unmount::unmount(&act, &path, request.target.kind),
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
        let file = self.run_dir.act_lock(target);
        let lock = Lock::take(&file, Mode::Exclusive, Wait::For(wait)).map_err(|why| {
            let what = format!("unable to lock {}", file.display());
            Failed::system(ErrorCode::Internal, &what, &why)
        })?;
        let Some(lock) = lock else { return Ok(None) };
        let (mounts, until) = (read_mounts()?, Deadline::after(self.bound));
        let (token, export, is_settling) = (None, None, false);
        Ok(Some(Act { node: self, target, token, is_settling, place, until, mounts, export, lock }))
    }

    /// Takes the target's act lock, and refuses a plan that a later one has overtaken.
    fn begin<'a>(
        &'a self,
        request: &'a Request,
        place: Place,
        until: Deadline,
    ) -> Result<Act<'a>, Failed> {
        let target = &request.target.id;
        let path = self.run_dir.act_lock(target);
        let lock = Lock::take(&path, Mode::Exclusive, Wait::For(until.left()))
            .map_err(|why| {
                let what = format!("unable to lock {}", path.display());
                Failed::system(ErrorCode::Internal, &what, &why)
            })?
            .ok_or_else(|| {
                let text = format!("timeout: another act on {target} does not end");
                Failed::new(ErrorCode::Busy, text)
            })?;
        if let Some(plan) = &request.plan {
            let passed = self.run_dir.pass_fence(plan).map_err(|why| {
                Failed::system(ErrorCode::Internal, "unable to note the fence", &why)
            })?;
            if !passed {
                let text = format!("operation {} was overtaken by a later one", plan.operation);
                return Err(Failed::new(ErrorCode::Stale, text));
            }
        }
        let mounts = read_mounts()?;
        place.check(&mounts)?;
        let (export, token) = (export_of(request), request.token.as_ref());
        let is_settling = request.plan.as_ref().is_some_and(|plan| plan.action == Action::Settle);
        Ok(Act { node: self, target, token, is_settling, place, until, mounts, export, lock })
    }
}

impl Failed {
    /// A step that failed because time was up has not shown that it cannot be done.
    fn after_the_deadline(self) -> Self {
        match self.code {
            ErrorCode::Validation | ErrorCode::Stale => self,
            _ if self.text.starts_with("timeout") => self,
            code => Failed { code, text: format!("timeout: {}", self.text) },
        }
    }
}

impl From<Unfit> for Failed {
    fn from(why: Unfit) -> Self {
        match why {
            Unfit::Invalid(why) => why.into(),
            Unfit::Failed(text) => Failed::new(ErrorCode::Mount, text),
        }
    }
}

pub(crate) fn read_mounts() -> Result<Mounts, Failed> {
    Mounts::read().map_err(|why| {
        Failed::system(ErrorCode::Internal, "unable to read /proc/self/mountinfo", &why)
    })
}
