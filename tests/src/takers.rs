//! dms-lock and flock(1) on one lock file, each in front of the same commands: what a start, a crowd
//! and a hand-over take.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::process::waits_for_lock;
use crate::run::eventually;

/// What stands in front of the command.
#[derive(Clone, Copy, Debug)]
pub enum Taker {
    /// flock(1).
    Flock,
    /// dms-lock.
    Ours,
    /// The command alone, and no lock.
    Nothing,
    /// The command alone, started by somebody who has made the two system calls himself.
    Calls,
}

/// A lock file in memory, as /run/lock is, and the programs that take it.
pub struct Takers {
    lab: Lab,
    ours: PathBuf,
    locks: PathBuf,
}

impl Takers {
    /// With this dms-lock.
    pub fn new(ours: PathBuf) -> Takers {
        let lab = Lab::unique();
        let locks = PathBuf::from(format!("/dev/shm/dms-locks-{}", lab.node));
        fs::create_dir(&locks).expect("a fresh name");
        Takers { lab, ours, locks }
    }

    /// The node that the locks are of.
    pub fn node(&self) -> &str {
        &self.lab.node
    }

    fn file(&self) -> PathBuf {
        self.locks.join("x.lock")
    }

    fn spawn(&self, taker: Taker, command: &[&str]) -> Child {
        let mut start = match taker {
            Taker::Flock => {
                let mut start = Command::new("/usr/bin/flock");
                start.arg(self.file()).args(command);
                start
            }
            Taker::Ours => {
                let mut start = Command::new(&self.ours);
                start.args(["x", "--"]).args(command);
                start
            }
            Taker::Nothing | Taker::Calls => {
                let mut start = Command::new(command[0]);
                start.args(&command[1..]);
                start
            }
        };
        // Cargo's, which makes whatever is linked dynamically look in vain in its directories first.
        start.env_remove("LD_LIBRARY_PATH").env("DMS_LOCK_DIR", &self.locks);
        start.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it is there")
    }

    /// The lock, if the taker has to take it in this process.
    fn taken(&self, taker: Taker) -> Option<File> {
        let take = || {
            let file = File::create(self.file()).expect("room for it");
            file.lock().expect("nobody has it");
            file
        };
        matches!(taker, Taker::Calls).then(take)
    }

    /// From the start to the end, with a command that does nothing.
    pub fn whole(&self, taker: Taker) -> Duration {
        let begun = Instant::now();
        let _taken = self.taken(taker);
        let mut child = self.spawn(taker, &["/bin/true"]);
        assert!(child.wait().is_ok_and(|end| end.success()));
        begun.elapsed()
    }

    /// From the start to the first word of the command.
    pub fn start_to_word(&self, taker: Taker) -> Duration {
        let begun = Instant::now();
        let _taken = self.taken(taker);
        word(self.spawn(taker, &["/bin/echo"]), begun)
    }

    /// From the release of the lock to the first word of the command that waited for it.
    pub fn hand_over(&self, taker: Taker) -> Duration {
        let file = File::create(self.file()).expect("room for it");
        file.lock().expect("nobody has it");
        let child = self.spawn(taker, &["/bin/echo"]);
        eventually("it waits", || waits_for_lock(child.id()));
        let begun = Instant::now();
        drop(file);
        word(child, begun)
    }

    /// So many at once, each of which holds the lock for 2 ms.
    pub fn crowd(&self, taker: Taker, many: usize) -> Duration {
        let begun = Instant::now();
        let crowd: Vec<Child> =
            (0..many).map(|_| self.spawn(taker, &["/bin/sleep", "0.002"])).collect();
        for mut child in crowd {
            assert!(child.wait().is_ok_and(|end| end.success()));
        }
        begun.elapsed()
    }
}

impl Drop for Takers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.locks);
    }
}

fn word(mut child: Child, begun: Instant) -> Duration {
    let mut byte = [0];
    child.stdout.as_mut().expect("it is piped").read_exact(&mut byte).expect("it says something");
    let took = begun.elapsed();
    assert!(child.wait().is_ok_and(|end| end.success()));
    took
}
