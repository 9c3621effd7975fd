//! A node's listener.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::broker::Broker;
use crate::lab::Lab;
use crate::process::Process;
use crate::run::eventually;

/// A dms-listen that runs.
pub struct Listener {
    child: Child,
    log: PathBuf,
}

impl Listener {
    /// Starts it on this node, and waits until it serves its queue. `args` are its own, and then
    /// `--` and the filter.
    #[track_caller]
    pub fn start(lab: &Lab, broker: &Broker, args: &[&str]) -> Listener {
        let listener = Listener::begin(lab, &broker.url(), args);
        listener.wait_for("serving", 1);
        listener
    }

    /// Starts it, and does not wait.
    #[track_caller]
    pub fn begin(lab: &Lab, url: &str, args: &[&str]) -> Listener {
        let mut command = lab.command("dms-listen", args);
        Listener::spawn(lab, command.env("DMS_RABBITMQ_URL", url))
    }

    /// Starts this command as a listener.
    #[track_caller]
    pub fn spawn(lab: &Lab, command: &mut Command) -> Listener {
        let log = lab.fresh_path("listener");
        let file = File::create(&log).expect("room for it");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Listener { child: child.expect("it is there"), log }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has logged these words so many times.
    #[track_caller]
    pub fn wait_for(&self, words: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(40);
        while self.log().matches(words).count() < times {
            assert!(Instant::now() < end, "{words:?} was not said {times} times\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        Process { pid: self.pid(), command: String::new() }.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut end = None;
        eventually("the listener's end", || {
            end = self.child.try_wait().expect("it is ours");
            end.is_some()
        });
        end.expect("just seen")
    }

    /// Its children.
    pub fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let file = format!("/proc/{pid}/task");
        let tasks = fs::read_dir(file).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists.flat_map(|list| numbers(&list)).collect()
    }
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
