//! That a target's last daemon was seen to end. Where that is on record, none has to be looked for among
//! all processes before the next one is started.
//!
//! It stands in the file of the act lock, under that lock, and is taken away before a daemon is started:
//! whoever is killed in between, or loses the run directory, leaves no such word, and then one looks.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::act::Act;
use crate::daemon::Identity;

/// Notes that nothing of ours runs at the mount point any more.
pub(crate) fn note(act: &Act<'_>) {
    if let Err(why) = fs::write(act.lock.file().path(), word(act.place.path())) {
        // The next mount looks.
        log::debug!("not noted that the daemon of {} has ended: {why}", act.target);
    }
}

/// Whether that was noted of this mount point; it is no more after this.
pub(crate) fn take(act: &Act<'_>) -> io::Result<bool> {
    let file = act.lock.file().path();
    let noted = fs::read(file)?;
    if !noted.is_empty() {
        fs::write(file, "")?;
    }
    Ok(noted == word(act.place.path()))
}

fn word(path: &Path) -> Vec<u8> {
    [b"ended ", path.as_os_str().as_encoded_bytes(), b"\n"].concat()
}

/// How long a daemon of ours that has ended may go on as a zombie: one of our threads waits for it.
const OURS: Duration = Duration::from_millis(100);

/// The same of somebody else's, who may never look. Then the next mount does.
const THEIRS: Duration = Duration::from_millis(1);

/// Whether it has ended, and nobody is left of what it has started, either, as far as it has not gone its own way.
pub(crate) fn has_left_nobody(daemon: &Identity) -> bool {
    if daemon.is_alive() {
        return false;
    }
    let end = Instant::now() + if daemon.is_child() { OURS } else { THEIRS };
    while daemon.has_group() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_micros(50));
    }
    true
}
