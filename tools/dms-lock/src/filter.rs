//! A filter with a life lock of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use dms_cli::{Context, Failure};
use dms_filter::Lost;
use dms_flock::life;
use dms_wire::MAX_LINE;

use crate::held;
use crate::locks::Locks;
use crate::replace::cannot_run;

/// How long a filter may take to end once its input has ended: it may have a request yet.
const FINISH: Duration = Duration::from_secs(30);

/// A running filter: a process group with a life lock.
pub(crate) struct Filter {
    running: dms_filter::Filter,
    life: PathBuf,
}

impl Filter {
    /// Starts it.
    pub(crate) fn start(locks: &Locks<'_>, command: &[OsString]) -> Result<Filter, Failure> {
        let life = locks.dir.new_life()?;
        let passed = life.pass_on().context("unable to pass on", life.path().display())?;
        let (program, args) = command.split_at(1);
        let mut command = Command::new(&program[0]);
        command.args(args).env(life::VARIABLE, life.path()).env(life::ONE_AT_A_TIME, "1");
        let held = locks.held.clone().with_waiting(std::process::id());
        command.env(held::VARIABLE, held.words());
        let running = dms_filter::Filter::start(&mut command, MAX_LINE)
            .map_err(|why| cannot_run(&program[0], &why))?;
        // From here on the life lock is the filter's alone.
        drop(passed);
        Ok(Filter { running, life: life.path().to_owned() })
    }

    /// Whether it has ended, or said something that nobody asked for, since its last answer.
    pub(crate) fn is_spent(&mut self) -> bool {
        self.running.is_spent()
    }

    /// Hands it a line and waits for its answer.
    pub(crate) fn ask(&mut self, line: &[u8], patience: Duration) -> Result<Vec<u8>, Lost> {
        self.running.ask(line, patience)
    }

    /// Ends its input, and waits for its end. `None`: not even killing it ends it.
    pub(crate) fn finish(self) -> Result<Option<ExitStatus>, Failure> {
        let end = self.running.finish(FINISH);
        bury(&self.life);
        end.context("unable to wait for", "the filter")
    }

    /// Ends what is left of it; of one that hangs, all that it has started. `None`: that does not
    /// end it (it hangs in the kernel).
    pub(crate) fn end(self, hangs: Hangs) -> Result<Option<ExitStatus>, Failure> {
        let end = match hangs {
            Hangs::Yes => self.running.kill(),
            Hangs::No => self.running.end(),
        };
        bury(&self.life);
        end.context("unable to wait for", "the filter")
    }
}

/// Whether a filter is of no more use because it does not answer.
#[derive(Clone, Copy)]
pub(crate) enum Hangs {
    Yes,
    No,
}

/// Children of it may live on; then the file stays, and says so.
fn bury(life: &Path) {
    if let Err(why) = life::bury(life) {
        log::warn!("unable to remove {}: {why}", life.display());
    }
}
