//! The lock directory: whose it is, who may use it, and what stands where in it.
//!
//! Whoever can change the directory can take a lock file away from under its holder. So it has to
//! belong to somebody who is trusted, and the rest of the world must not write to it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dms_cli::{Context, Failure};
use dms_flock::{Access, life};
use nix::sys::statfs::statfs;
use nix::unistd::{Gid, Group, Uid, User, geteuid};

/// The directory of this host's locks.
pub(crate) struct LockDir {
    path: PathBuf,
    access: Access,
}

/// File systems that other hosts may have, too: whose flock(2) they see, nobody knows.
const SHARED: [(i64, &str); 12] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x5346_414F, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x6573_5546, "FUSE"),
];

impl LockDir {
    /// Makes the directory if it is not there, for us or for a group, and looks whether it is safe.
    pub(crate) fn open(path: &Path, group: Option<&str>) -> Result<Self, Failure> {
        let group = group.map(find_group).transpose()?;
        let wanted =
            group.as_ref().map_or(Access::Owner, |group| Access::Group(group.gid.as_raw()));
        let link = link_owner(path);
        if let Some(owner) = link.filter(|&owner| !is_trusted(owner, group.as_ref())) {
            let what = format!("{} is a symbolic link", path.display());
            return Err(untrusted(&what, owner, group.as_ref()));
        }
        // One that is trusted is as good as what it leads to.
        let path = &match link {
            Some(_) => fs::canonicalize(path).context("unable to follow", path.display())?,
            None => path.to_owned(),
        };
        let seen = make(path, wanted).context("unable to make lock directory", path.display())?;
        if !is_trusted(seen.uid(), group.as_ref()) {
            let what = format!("lock directory {}", path.display());
            return Err(untrusted(&what, seen.uid(), group.as_ref()));
        }
        if seen.mode() & 0o002 != 0 {
            let text = format!("lock directory {} is writable by everybody", path.display());
            return Err(Failure::permanent(text));
        }
        warn_if_shared(path);
        // One that was made for a group says so by itself.
        let is_for_group = wanted == Access::Owner && seen.mode() & 0o020 != 0;
        let access = if is_for_group { Access::Group(seen.gid()) } else { wanted };
        Ok(LockDir { path: path.to_owned(), access })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// The lock file of a name, as [`crate::name::file_name`] writes it; of one that is nested,
    /// that of its level.
    pub(crate) fn lock(&self, file_name: &str, level: u32) -> PathBuf {
        self.path.join(match level {
            0 => format!("{file_name}.lock"),
            level => format!("{file_name}.lock.{level}"),
        })
    }

    /// Where those who want the lock wait for their turn.
    pub(crate) fn gate(&self, file_name: &str) -> PathBuf {
        self.path.join(format!("{file_name}.gate"))
    }

    /// The file names, levels and paths of all locks.
    pub(crate) fn all_locks(&self) -> io::Result<Vec<(String, u32, PathBuf)>> {
        let mut found: Vec<_> = fs::read_dir(&self.path)?
            .filter_map(|entry| {
                let file = entry.ok()?.file_name().into_string().ok()?;
                let (name, level) = split(&file)?;
                Some((name.to_owned(), level, self.path.join(&file)))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// A life lock for a new run.
    pub(crate) fn new_life(&self) -> Result<life::Life, Failure> {
        let id = dms_cli::random_id().context("unable to make", "a random id")?;
        life::Life::begin(&self.path, self.access, &id)
            .context("unable to make a life lock in", self.path.display())
    }
}

/// Makes the directory if it has to be made, and looks at it.
fn make(path: &Path, access: Access) -> io::Result<fs::Metadata> {
    if access == Access::Owner
        && let Ok(seen) = fs::metadata(path)
    {
        return if seen.is_dir() { Ok(seen) } else { Err(io::ErrorKind::NotADirectory.into()) };
    }
    access.make_dir(path)?;
    fs::metadata(path)
}

/// Name and level of a lock file.
fn split(file: &str) -> Option<(&str, u32)> {
    if let Some(name) = file.strip_suffix(".lock") {
        return Some((name, 0));
    }
    let (name, level) = file.rsplit_once(".lock.")?;
    Some((name, level.parse().ok()?))
}

fn find_group(name: &str) -> Result<Group, Failure> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    let found = found.context("unable to look up group", name)?;
    found.ok_or_else(|| Failure::permanent(format!("there is no group {name}")))
}

/// Who made the link, if it is one: in a directory that everybody may write to, anybody can.
fn link_owner(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_symlink).map(|link| link.uid())
}

/// Root, ourselves, and who is in the group that the locks are for.
fn is_trusted(owner: u32, group: Option<&Group>) -> bool {
    if owner == 0 || owner == geteuid().as_raw() {
        return true;
    }
    let Some(group) = group else { return false };
    let user = User::from_uid(Uid::from_raw(owner)).ok().flatten();
    user.is_some_and(|user| user.gid == group.gid || group.mem.contains(&user.name))
}

fn untrusted(what: &str, owner: u32, group: Option<&Group>) -> Failure {
    let name = User::from_uid(Uid::from_raw(owner)).ok().flatten().map(|user| user.name);
    let name = name.unwrap_or_else(|| owner.to_string());
    let nor = group.map_or(String::new(), |group| format!(", nor in group {}", group.name));
    Failure::permanent(format!("{what} of user {name}, who is neither root nor us{nor}"))
}

fn warn_if_shared(path: &Path) {
    // One that cannot be asked is no worse than before.
    let Ok(found) = statfs(path) else { return };
    #[allow(clippy::useless_conversion, reason = "its width is the machine's")]
    let kind = i64::from(found.filesystem_type().0) & 0xFFFF_FFFF;
    if let Some((_, name)) = SHARED.iter().find(|(magic, _)| *magic == kind) {
        let path = path.display();
        log::warn!("lock directory {path} is on {name}: locks are for one host, and may not work");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_says_its_name_and_its_level() {
        assert_eq!(split("x.lock"), Some(("x", 0)));
        assert_eq!(split("x.lock.lock"), Some(("x.lock", 0)));
        assert_eq!(split("x.lock.2"), Some(("x", 2)));
        assert_eq!(split("x.lock.2.lock"), Some(("x.lock.2", 0)));
        for other in ["x.gate", "life", "x.lock.", "x.lock.y", "x"] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
