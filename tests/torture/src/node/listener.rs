//! The listener of a node, and what a service manager does for it: one that ends is started again.

use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Node, Role};
use crate::hub::Hub;

/// How soon one that has ended is started again.
const RESTART: Duration = Duration::from_millis(300);

/// How many requests at once, and how long a filter that has nothing to do is kept, in seconds.
const JOBS: &str = "4";
const IDLE: &str = "5";

impl Node {
    /// Keeps a listener running, until [`Node::stop_listening`].
    pub(crate) fn keep_listening(&self, hub: &Hub) {
        while !self.is_over.load(Ordering::SeqCst) {
            let mut child = self.listener();
            hub.history.note("listener", json!({"node": self.name}));
            let end = child.wait().map_or_else(|why| why.to_string(), |end| end.to_string());
            hub.history.note("listener-ended", json!({"node": self.name, "how": end}));
            sleep(RESTART);
        }
    }

    /// Starts one listener.
    pub(crate) fn listener(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.path("logs/listener"));
        let filter = if self.role == Role::Act { "dms-mount" } else { "dms-pipeline" };
        let args = ["--jobs", JOBS, "--idle", IDLE, "--grace", "20", "--", filter];
        let mut command: Command = self.command("dms-listen", &args);
        command.stdout(Stdio::null()).stderr(log.expect("room for it"));
        command.spawn().expect("it is this program")
    }

    /// No listener is started any more, and those that run are told to end. Whether they did.
    pub(crate) fn stop_listening(&self) -> bool {
        self.is_over.store(true, Ordering::SeqCst);
        let end = Instant::now() + Duration::from_secs(40);
        let mut told = Vec::new();
        loop {
            let running = self.processes_of("dms-listen");
            if running.is_empty() {
                return true;
            }
            // Once each: a second signal would be an order to drop everything.
            for process in running {
                if !told.contains(&process.pid) && process.signal(Signal::SIGTERM) {
                    told.push(process.pid);
                }
            }
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
    }
}
