//! A broker for tests that need one to lose, to fill or to stop: a RabbitMQ of their own.
//!
//! Each [`Broker`] has its own directory, ports, node name, cookie and epmd, and all of it is gone
//! when it is dropped. The machine's own broker, if there is one, is neither used nor touched.

mod node;
mod tls;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Process, processes_with};
use crate::run::{eventually, run};
use crate::server::Server;

/// How long a start may take. One takes 3 s where the machine has nothing else to do.
const START: Duration = Duration::from_secs(90);

/// How long rabbitmqctl may take, in seconds.
const CTL: &str = "60";

/// A RabbitMQ that runs, or has run.
pub struct Broker {
    root: PathBuf,
    port: u16,
    epmd: Server,
    /// The script that starts it becomes erl, and erl becomes the VM.
    vm: Server,
}

/// A queue, as rabbitmqctl lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The messages in it, those that are delivered and not acknowledged among them.
    pub messages: u64,
    /// The messages that are delivered and not acknowledged.
    pub unacknowledged: u64,
    /// Who consumes from it.
    pub consumers: u64,
}

impl Broker {
    /// Who may do everything.
    pub const USER: &str = "dms";

    /// The user's password: what a URL must encode is in it.
    pub const PASSWORD: &str = "p@ss/w0rd-must-not-leak";

    /// A fresh broker.
    #[track_caller]
    pub fn start() -> Broker {
        Broker::with_config("", "")
    }

    /// A fresh broker with these lines in its rabbitmq.conf, and this advanced.config, if any.
    #[track_caller]
    pub fn with_config(extra_conf: &str, advanced: &str) -> Broker {
        let mut broker = Broker::prepare();
        broker.configure(extra_conf, advanced);
        broker.start_again();
        broker
    }

    /// A fresh broker that also takes TLS, from clients with a certificate of its authority.
    #[track_caller]
    pub fn with_tls() -> Broker {
        let mut broker = Broker::prepare();
        broker.make_certificates();
        broker.configure(&broker.tls_conf(), "");
        broker.start_again();
        broker
    }

    /// The one broker of this test process: it lives while anybody holds it.
    #[track_caller]
    pub fn shared() -> Arc<Broker> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        // One that could not be started has failed its own test, and says nothing of the next.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let broker = Arc::new(Broker::start());
            *shared = Arc::downgrade(&broker);
            broker
        })
    }

    /// Where it listens, on 127.0.0.1: the same port from its first start to its last.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens for TLS, if it does.
    pub fn tls_port(&self) -> u16 {
        self.port + node::TLS
    }

    /// A URL with the password in it.
    pub fn url(&self) -> String {
        let password = urlencoding::encode(Broker::PASSWORD);
        format!("amqp://{}:{password}@127.0.0.1:{}", Broker::USER, self.port)
    }

    /// What it has logged since it was made.
    pub fn log(&self) -> String {
        let log = fs::read(self.root.join(node::LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Every process that belongs to it: clients that are told of a file in its directory do not.
    pub fn processes(&self) -> Vec<Process> {
        processes_with(&format!("HOME={}/home", self.root.display()))
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs rabbitmqctl for it; returns what that prints.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        // -k: one that waits for a broker that is stopped does not heed SIGTERM.
        let mut command = self.command("timeout");
        command.args(["-k", "1", CTL, node::CTL, "--quiet"]).args(args);
        run(&mut command, b"").expect(0).stdout.clone()
    }

    /// Its queues, by name.
    #[track_caller]
    pub fn queues(&self) -> Vec<Queue> {
        let columns = ["name", "messages", "messages_unacknowledged", "consumers"];
        let list = self.ctl(&[&["list_queues", "--formatter", "json"], &columns[..]].concat());
        let rows: Vec<Value> =
            serde_json::from_str(&list).unwrap_or_else(|why| panic!("{why}: {list:?}"));
        let number = |row: &Value, column: &str| row[column].as_u64().unwrap_or_default();
        let queue = |row: &Value| Queue {
            name: row["name"].as_str().unwrap_or_default().to_owned(),
            messages: number(row, "messages"),
            unacknowledged: number(row, "messages_unacknowledged"),
            consumers: number(row, "consumers"),
        };
        let mut queues: Vec<Queue> = rows.iter().map(queue).collect();
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        queues
    }

    /// The queue of this name, if there is one.
    #[track_caller]
    pub fn queue(&self, name: &str) -> Option<Queue> {
        self.queues().into_iter().find(|queue| queue.name == name)
    }

    /// The connections to it, each by its two ends.
    #[track_caller]
    pub fn connections(&self) -> Vec<String> {
        let list = self.ctl(&["list_connections", "--no-table-headers", "name"]);
        let mut connections: Vec<String> = list.lines().map(str::to_owned).collect();
        connections.sort();
        connections
    }

    /// Ends the broker, and not the VM: its clients are told so, and its port is closed.
    #[track_caller]
    pub fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Undoes [`Broker::stop_app`].
    #[track_caller]
    pub fn start_app(&self) {
        self.ctl(&["start_app"]);
    }

    /// Lacks memory, from now on: nobody can publish.
    #[track_caller]
    pub fn alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0"]);
        eventually("the memory alarm", || self.alarms().contains("memory"));
    }

    /// Undoes [`Broker::alarm`].
    #[track_caller]
    pub fn no_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]);
        eventually("the end of the memory alarm", || !self.alarms().contains("memory"));
    }

    fn alarms(&self) -> String {
        self.ctl(&["eval", "rabbit_alarm:get_alarms()."])
    }

    /// Stands still: connections stay open, and nothing is answered.
    #[track_caller]
    pub fn suspend(&self) {
        self.vm.suspend();
    }

    /// Undoes [`Broker::suspend`].
    pub fn resume(&self) {
        self.vm.resume();
    }

    /// Stops as an operator would stop it, and waits for that.
    #[track_caller]
    pub fn stop(&mut self) {
        self.vm.stop();
    }

    /// Dies, as in a power cut.
    #[track_caller]
    pub fn kill(&mut self) {
        self.vm.kill();
    }

    /// Stops and starts again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts, with the port and the data that it had, and waits until it can be used.
    #[track_caller]
    pub fn start_again(&mut self) {
        // The words of this start only: whether it is ready is seen in them.
        let said = fs::File::create(self.root.join(node::SAID)).expect("room for it");
        let errors = said.try_clone().expect("a descriptor");
        let mut server = self.command(node::SERVER);
        server.stdin(Stdio::null()).stdout(said).stderr(errors);
        let spawn = || server.spawn().unwrap_or_else(|why| panic!("{}: {why}", node::SERVER));
        let vm = std::mem::replace(&mut self.vm, Server::new("broker"));
        self.vm = vm.start(spawn, START, || self.is_ready(), || self.tail());
    }

    /// Whether it has booted, and lets its user in. It does the latter before it has done the
    /// former, and rabbitmqctl does not like that.
    fn is_ready(&self) -> bool {
        let said = fs::read(self.root.join(node::SAID)).unwrap_or_default();
        String::from_utf8_lossy(&said).contains(" completed with ")
            && TcpStream::connect(("127.0.0.1", self.port)).and_then(node::log_in).is_ok()
    }

    /// The end of what it said and logged.
    fn tail(&self) -> String {
        let said = fs::read(self.root.join(node::SAID)).unwrap_or_default();
        let all = format!("{}-- log\n{}", String::from_utf8_lossy(&said), self.log());
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The VM's helpers have sessions of their own, and end a little after it.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes();
            for process in &left {
                process.signal(Signal::SIGKILL);
            }
            self.vm.end();
            self.epmd.end();
            if left.is_empty() || Instant::now() > end {
                break;
            }
            sleep(Duration::from_millis(2));
        }
        let _ = Command::new("rm").args(["-rf", "--"]).arg(&self.root).status();
    }
}
