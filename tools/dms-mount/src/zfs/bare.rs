//! The directories below a pool's datasets. ZFS makes them, on the node's own disk, and they outlive a
//! power cut: a job that does not know of it would write on, into them. So they are made immutable, as
//! the mount points of other targets are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::datasets;
use crate::act::Act;
use crate::mountinfo::Mounts;
use crate::seal;

/// How a directory is opened: not by a link.
const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Keeps everybody from writing where the pool's datasets are mounted, for as long as they are not.
/// Where the file system does not know how, it is left as it is. (The altroot itself may be one of these
/// places: so it counts as sealed before this.)
pub(super) fn seal_all(act: &Act<'_>, mounts: &Mounts, pool: &str) {
    let paths: Vec<&Path> =
        datasets(act, mounts, pool).into_iter().map(|mount| mount.path.as_path()).collect();
    // What is mounted in another dataset has its directory there, and not on the node's disk.
    let is_inner =
        |path: &Path| paths.iter().any(|other| path != *other && path.starts_with(other));
    for path in paths.iter().filter(|path| !is_inner(path)) {
        if let Err(why) = below(path).and_then(|dir| seal::set(&dir, true)) {
            log::debug!("unable to make {} immutable: {why}", path.display());
        }
    }
}

/// Removes directories that were sealed, the deepest first; never what is in them.
pub(super) fn remove(mut paths: Vec<PathBuf>) {
    paths.sort();
    paths.dedup();
    for path in paths.iter().rev() {
        let opened = open(path, DIRECTORY, Mode::empty()).map(File::from);
        // One that is not empty keeps what is in it, and its seal.
        let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        let unsealed = opened.map_err(io::Error::from).and_then(|dir| match is_empty {
            true => seal::set(&dir, false),
            false => Ok(()),
        });
        if let Err(why) = unsealed.and_then(|()| fs::remove_dir(path)) {
            log::debug!("left {} behind: {why}", path.display());
        }
    }
}

/// The directory that is hidden by what is mounted on it, seen through a copy of the mount above,
/// which has nothing mounted on it.
fn below(path: &Path) -> io::Result<File> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, parent, flags)?;
    Ok(File::from(openat(&copy, name, DIRECTORY, Mode::empty())?))
}
