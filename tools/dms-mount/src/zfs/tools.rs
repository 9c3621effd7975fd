//! zpool(8) and zfs(8): what they are told, and what they say is there.
//!
//! Their exit status is not believed (one version ends well after an import that it has refused):
//! whatever they were told to do, the list of pools is read again. Only a list counts as the truth,
//! and one that cannot be had is an error, never an empty one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dms_wire::{Access, Deadline, ErrorCode};

use crate::child::{self, Ended, Outcome};
use crate::failed::Failed;
use crate::s3::{SEARCH_PATH, find_in_search_path};
use dms_flock::Lock;

/// How long a look may take. It waits for a pool that hangs.
const LOOK: Duration = Duration::from_secs(20);

/// More of what the programs say is not passed on.
const MAX_WORDS: usize = 700;

/// An imported pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) name: String,
    pub(crate) guid: String,
    pub(crate) health: String,
    /// None: its datasets are wherever they say.
    pub(crate) altroot: Option<PathBuf>,
    pub(crate) access: Access,
}

/// Whether there is anybody to ask: the kernel's module, or zfs-fuse.
pub(crate) fn runs() -> bool {
    ["/dev/zfs", "/run/zfs/zfs_socket"].iter().any(|path| Path::new(path).exists())
}

/// The programs, where they were found.
#[derive(Debug)]
pub(crate) struct Tools {
    zpool: PathBuf,
}

impl Tools {
    /// Looked up each time: they may be installed while we run.
    pub(crate) fn find(code: ErrorCode) -> Result<Tools, Failed> {
        match find_in_search_path("zpool") {
            Some(zpool) => Ok(Tools { zpool }),
            None => Err(Failed::new(code, "ZFS failed: zpool is not installed")),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.zpool
    }

    /// All imported pools of this host.
    pub(crate) fn list(&self, until: Deadline, code: ErrorCode) -> Result<Vec<Imported>, Failed> {
        const COLUMNS: &str = "name,guid,health,altroot";
        let list = |columns: &str| self.look(&["list", "-H", "-o", columns], until, &code);
        let ended = list(&format!("{COLUMNS},readonly"))?;
        let ended = match ended.status.success() {
            true => ended,
            // A version that cannot import read-only: then nothing is.
            false if ended.stderr.contains("'readonly'") => list(COLUMNS)?,
            false => ended,
        };
        if !ended.status.success() {
            let text = format!("unable to list the pools: {}", words(&ended));
            return Err(Failed::new(code, text));
        }
        let pools = ended.stdout.lines().filter(|line| !line.is_empty()).map(parse);
        pools.collect::<Option<Vec<_>>>().ok_or_else(|| {
            Failed::new(code, "unable to list the pools: zpool says what nobody understands")
        })
    }

    fn look(&self, args: &[&str], until: Deadline, code: &ErrorCode) -> Result<Ended, Failed> {
        // At least a moment: what was done is looked at even when time is up.
        let bound = LOOK.min(until.left()).max(Duration::from_secs(1));
        match self.run(&args.iter().map(OsStr::new).collect::<Vec<_>>(), bound, None, code)? {
            Outcome::Ended(ended) => Ok(ended),
            Outcome::Killed | Outcome::Outlives => {
                let text = format!("timeout: zpool {} does not end", args[0]);
                Err(Failed::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// Runs zpool(8). `lock`: what outlives its time keeps it.
    pub(crate) fn run(
        &self,
        args: &[&OsStr],
        bound: Duration,
        lock: Option<&Lock>,
        code: &ErrorCode,
    ) -> Result<Outcome, Failed> {
        let mut command = Command::new(&self.zpool);
        command.args(args).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C");
        child::run(&mut command, bound, lock).map_err(|why| {
            let what = format!("unable to run {}", self.zpool.display());
            Failed::system(code.clone(), &what, &why)
        })
    }

    /// Mounts a dataset again, as far as that goes.
    pub(crate) fn mount_again(&self, dataset: &str) {
        match self.run_zfs(&["mount", dataset]) {
            Ok(ended) if ended.status.success() => {}
            Ok(ended) => log::warn!("unable to mount {dataset} again: {}", words(&ended)),
            Err(why) => log::warn!("unable to mount {dataset} again: {why}"),
        }
    }

    /// Mounts what an import of the pool mounts, and is not mounted.
    pub(crate) fn mount_rest(&self, pool: &str) -> Result<(), Failed> {
        for dataset in self.unmounted(pool)? {
            log::warn!("dataset {dataset} is not mounted: mounting it");
            self.mount_again(&dataset);
        }
        match self.unmounted(pool)?.first() {
            None => Ok(()),
            Some(dataset) => {
                let text = format!("ZFS import failed: {dataset} is not mounted");
                Err(Failed::new(ErrorCode::Mount, text))
            }
        }
    }

    /// The datasets that an import mounts, and that are not mounted.
    fn unmounted(&self, pool: &str) -> Result<Vec<String>, Failed> {
        const COLUMNS: &str = "name,canmount,mounted,mountpoint";
        let ended = self.run_zfs(&["list", "-H", "-r", "-t", "filesystem", "-o", COLUMNS, pool])?;
        if !ended.status.success() {
            let text = format!("unable to list the datasets of pool {pool}: {}", words(&ended));
            return Err(Failed::new(ErrorCode::Mount, text));
        }
        let is_missing = |line: &str| {
            let mut fields = line.split('\t').skip(1);
            fields.next() == Some("on")
                && fields.next() == Some("no")
                && fields.next().is_some_and(|path| path.starts_with('/'))
        };
        let missing = ended.stdout.lines().filter(|line| is_missing(line));
        Ok(missing.filter_map(|line| Some(line.split('\t').next()?.to_owned())).collect())
    }

    /// Runs zfs(8) to its end.
    fn run_zfs(&self, args: &[&str]) -> Result<Ended, Failed> {
        let zfs = self.zpool.with_file_name("zfs");
        let mut command = Command::new(&zfs);
        command.args(args).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C");
        match child::run(&mut command, LOOK, None) {
            Ok(Outcome::Ended(ended)) => Ok(ended),
            Ok(Outcome::Killed | Outcome::Outlives) => {
                let text = format!("timeout: zfs {} does not end", args[0]);
                Err(Failed::new(ErrorCode::Timeout, text))
            }
            Err(why) => {
                let what = format!("unable to run {}", zfs.display());
                Err(Failed::system(ErrorCode::Mount, &what, &why))
            }
        }
    }
}

/// What a program said, or how it ended if it said nothing.
pub(crate) fn words(ended: &Ended) -> String {
    let words: String = ended.stderr.chars().take(MAX_WORDS).collect();
    if words.is_empty() { format!("zpool ended ({})", ended.status) } else { words }
}

fn parse(line: &str) -> Option<Imported> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().map(str::to_owned);
    let (name, guid, health, altroot) = (next()?, next()?, next()?, next()?);
    let access = match next().as_deref() {
        Some("on") => Access::ReadOnly,
        Some("off" | "-") | None => Access::ReadWrite,
        Some(_) => return None,
    };
    let altroot = Some(altroot).filter(|path| path != "-").map(PathBuf::from);
    Some(Imported { name, guid, health, altroot, access })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_read_with_and_without_its_last_column() {
        let pool = parse("tank\t12\tONLINE\t/m/t\ton").expect("a whole line");
        assert_eq!((pool.name.as_str(), pool.guid.as_str()), ("tank", "12"));
        assert_eq!(
            (pool.altroot.as_deref(), pool.access),
            (Some("/m/t".as_ref()), Access::ReadOnly)
        );
        let pool = parse("tank\t12\tDEGRADED\t-").expect("of another version");
        assert_eq!((pool.altroot, pool.access), (None, Access::ReadWrite));
        assert_eq!(parse("no pools available"), None);
        assert_eq!(parse("tank\t12\tONLINE\t-\tmaybe"), None);
    }
}
