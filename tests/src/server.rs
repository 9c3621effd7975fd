//! A server of the tests' own, as a child: how it starts, stands still and ends.

use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::process::Process;
use crate::run::eventually;

/// One that runs, or has run. It is killed when it is dropped.
pub(crate) struct Server {
    name: &'static str,
    child: Option<Child>,
}

impl Server {
    /// One that does not run yet.
    pub(crate) fn new(name: &'static str) -> Server {
        Server { name, child: None }
    }

    /// Starts it, and waits until it can be used.
    #[track_caller]
    pub(crate) fn start(
        mut self,
        spawn: impl FnOnce() -> Child,
        patience: Duration,
        is_ready: impl Fn() -> bool,
        last_words: impl Fn() -> String,
    ) -> Server {
        let name = self.name;
        assert!(self.child.is_none(), "the {name} runs");
        self.child = Some(spawn());
        let end = Instant::now() + patience;
        while !is_ready() {
            let ended = self.ended();
            let late = Instant::now() > end;
            if ended.is_some() || late {
                panic!("no {name}: {ended:?}, late: {late}\n{}", last_words());
            }
            sleep(Duration::from_millis(3));
        }
        self
    }

    /// Stands still: connections stay open, and nothing is answered.
    #[track_caller]
    pub(crate) fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
        eventually(&format!("the {} stands still", self.name), || self.process().is_stopped());
    }

    /// Undoes [`Server::suspend`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Stops as an operator would stop it, and waits for that.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// Dies, as in a power cut.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    fn process(&self) -> Process {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("no {} runs", self.name));
        Process { pid: child.id().cast_signed(), command: String::new() }
    }

    fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("it is ours"))
    }

    #[track_caller]
    fn wait(&mut self) {
        eventually(&format!("the {}'s end", self.name), || self.ended().is_some());
        self.child = None;
    }

    /// Ends it, if it runs.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
