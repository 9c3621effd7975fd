//! ZFS: a target is a pool, and to mount it is to import it, with its mount path as altroot.
//!
//! What a pool's datasets are, and where below the altroot they are mounted, is the pool's business;
//! there may be none. So it is not the kernel's list of mounts that says whether a pool is there, but
//! zpool(8)'s list of pools: this pool, by its guid, with this altroot, with enough access.

mod bare;
mod export;
mod import;
mod options;
mod pool;
mod tools;

pub(crate) use export::{export, tidy};
pub(crate) use import::import;
pub(crate) use options::Options;
pub(crate) use pool::Pool;
pub(crate) use tools::{Imported, Tools, runs};

use std::path::Path;

use dms_flock::{Lock, Mode, Wait};
use dms_wire::{ErrorCode, Request, Target, TargetType};

use crate::act::Act;
use crate::failed::Failed;
use crate::mountinfo::{Mount, Mounts};
use crate::record::Record;
use crate::settings;
use crate::unmount::clean_up;

/// What is to be imported, and how.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pool: Pool,
    options: Options,
}

impl Wanted {
    /// What the request wants; how much access, its plan knows better.
    pub(crate) fn of(request: &Request, settings: &settings::Zfs) -> Result<Wanted, Failed> {
        let Target { zfs_import_opts, .. } = &request.target;
        let (_, pool) = request.target.check_mountable()?;
        let mut options = Options::parse(zfs_import_opts.as_deref().unwrap_or_default(), settings)?;
        if let Some(access) = request.plan.as_ref().and_then(|plan| plan.access) {
            options.access = options.access.max(access);
        }
        Ok(Wanted { pool: Pool::parse(pool)?, options })
    }
}

/// Whether a mount is of a dataset, of any pool.
pub(crate) fn is_zfs(mount: &Mount) -> bool {
    matches!(mount.fstype.as_str(), "zfs" | "fuse.zfs")
}

/// Whether a mount is of a dataset of the pool.
pub(crate) fn is_of(mount: &Mount, pool: &Pool) -> bool {
    is_zfs(mount) && pool.has(&mount.source)
}

/// Whether the request is about a pool: it says so, or the pool is on record as the target's.
pub(crate) fn is_asked_for(request: &Request, record: Option<&Record>) -> bool {
    let plan = request.plan.as_ref();
    let said = request.target.kind.or(plan.and_then(|plan| plan.kind));
    record.map(|record| record.kind).or(said) == Some(TargetType::Zfs)
}

/// One act on a pool at a time, whichever target it is of.
fn lock_pool(act: &Act<'_>, pool: &Pool) -> Result<Lock, Failed> {
    let file = act.node.run_dir.pool_lock(pool.as_str());
    let lock = Lock::take(&file, Mode::Exclusive, Wait::For(act.until.left())).map_err(|why| {
        let what = format!("unable to lock {}", file.display());
        Failed::system(ErrorCode::Internal, &what, &why)
    })?;
    lock.ok_or_else(|| {
        let text = format!("timeout: another act on pool {pool} does not end");
        Failed::new(ErrorCode::Busy, text)
    })
}

/// A target that was of a pool, and now is not: first the pool has to go.
pub(crate) fn refuse_while_imported(act: &Act<'_>) -> Result<(), Failed> {
    let Some(record) = act.before.as_ref().filter(|record| record.kind == TargetType::Zfs) else {
        return Ok(());
    };
    let tools = Tools::find(ErrorCode::Mount)?;
    let imported = tools.list(act.until, ErrorCode::Mount)?;
    if at(&imported, &record.path).is_some() {
        let (pool, path) = (&record.source, record.path.display());
        let text = format!("target {} is pool {pool}, imported at {path}", act.target);
        return Err(Failed::new(ErrorCode::Busy, text));
    }
    clean_up(act, Some(record));
    Ok(())
}

/// The pool that is imported there.
pub(crate) fn at<'a>(imported: &'a [Imported], path: &Path) -> Option<&'a Imported> {
    imported.iter().find(|pool| pool.altroot.as_deref() == Some(path))
}

/// The mounts of the pool below the act's place, the deepest last.
fn datasets<'a>(act: &'a Act<'_>, mounts: &'a Mounts, pool: &'a str) -> Vec<&'a Mount> {
    let pool = Pool::parse(pool).ok();
    let is_its = |mount: &&Mount| pool.as_ref().is_some_and(|pool| is_of(mount, pool));
    mounts.below(act.place.path()).filter(is_its).collect()
}
