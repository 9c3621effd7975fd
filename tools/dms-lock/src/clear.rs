//! `--clear`: removes what nobody holds, wants or has open.

use std::fs;
use std::io;
use std::path::Path;

use dms_cli::{Context, Exit, Failure};
use dms_flock::{Access, Lock, Mode, Wait, life};

use crate::dir::LockDir;

/// Removes the files of free locks, and those of ended runs.
pub(crate) fn clear(dir: &LockDir) -> Result<Exit, Failure> {
    let reading = "unable to read";
    let (mut removed, mut kept) = life::clear(dir.path()).context(reading, dir.path().display())?;
    for (name, level, path) in dir.all_locks().context(reading, dir.path().display())? {
        let gate = (level == 0).then(|| dir.gate(&name));
        let is_gone = remove(&path, gate.as_deref(), dir.access())
            .context("unable to remove", path.display())?;
        *(if is_gone { &mut removed } else { &mut kept }) += 1;
    }
    log::info!("{removed} removed, {kept} in use");
    Ok(Exit::Done)
}

/// Removes a lock's file, and its gate's: while we hold both, so that nobody of ours is between
/// opening and locking it without looking again; and only while nobody else is known to have it
/// open, since strangers do not look again.
fn remove(path: &Path, gate: Option<&Path>, access: Access) -> io::Result<bool> {
    let take = |path: &Path| Lock::take_as(path, access, Mode::Exclusive, Wait::No);
    let at_gate = match gate.map(take).transpose()? {
        Some(None) => return Ok(false),
        Some(held) => held,
        None => None,
    };
    let Some(lock) = take(path)? else { return Ok(false) };
    if lock.file().is_open_elsewhere() != Some(false) {
        return Ok(false);
    }
    fs::remove_file(path)?;
    if let (Some(_held), Some(gate)) = (at_gate, gate) {
        fs::remove_file(gate)?;
    }
    Ok(true)
}
