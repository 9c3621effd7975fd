//! A Keystone and a Barbican for tests of secrets: real ones, on ports of their own, over TLS.
//!
//! They are in a Python environment that tests/install-deps.sh makes once. All that an
//! [`OpenStack`] has is in its own directory, and gone when it is dropped.

mod cloud;
mod services;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::held::Filter;
use crate::process::{Process, processes_with};
use crate::run::{eventually, run};

/// How long a service may take to end by itself.
const END: Duration = Duration::from_secs(5);

/// Keystone and Barbican, with a project `svc`, its user `worker`, and a user `intruder` of another
/// project.
pub struct OpenStack {
    root: PathBuf,
    /// Keystone's; Barbican is on the next one, and once more, without TLS, on the one after.
    port: u16,
    servers: Vec<Child>,
    client: Mutex<Option<Filter>>,
}

impl OpenStack {
    /// The one of this test process: it lives while anybody holds it.
    #[track_caller]
    pub fn shared() -> Arc<OpenStack> {
        static SHARED: Mutex<Weak<OpenStack>> = Mutex::new(Weak::new());
        // One that could not be started has failed its own test, and says nothing of the next.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let openstack = Arc::new(OpenStack::start());
            *shared = Arc::downgrade(&openstack);
            openstack
        })
    }

    /// Keystone.
    pub fn auth_url(&self) -> String {
        format!("https://127.0.0.1:{}/v3", self.port)
    }

    /// Barbican, the endpoint `public` of the catalogue. It also listens on 127.0.0.2, of which its
    /// certificate knows nothing.
    pub fn barbican_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port + 1)
    }

    /// The same Barbican without TLS, the endpoint `internal` of the catalogue.
    pub fn plain_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 2)
    }

    /// `ca.pem`, the authority of the certificates; `other.pem`, another.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    /// Does this in Barbican's database.
    #[track_caller]
    pub fn sql(&self, sql: &str) {
        let mut sqlite = std::process::Command::new("sqlite3");
        run(sqlite.arg(self.root.join("barbican/data.db")), sql.as_bytes()).expect(0);
    }

    /// What the services have logged.
    fn logs(&self) -> String {
        let read = |dir: &str| std::fs::read(self.root.join(dir).join("log")).unwrap_or_default();
        let logs = ["keystone", "barbican", "plain"].map(read).concat();
        let text = String::from_utf8_lossy(&logs);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Sends a request with this token; returns the answer's status, token and body.
    #[track_caller]
    fn ask(&self, method: &str, url: &str, token: &str, body: &Value) -> Value {
        let asked = serde_json::json!({"method": method, "url": url, "body": body,
            "headers": {"X-Auth-Token": token, "X-Subject-Token": token}});
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = client.as_mut().expect("it runs until the end").ask(&asked);
        let is_good = answer["status"].as_u64().is_some_and(|status| status < 300);
        assert!(is_good, "{method} {url}: {answer}\n{}", self.logs());
        answer
    }

    fn processes(&self) -> Vec<Process> {
        processes_with(&format!("HOME={}/", self.root.display()))
    }
}

impl Drop for OpenStack {
    fn drop(&mut self) {
        if let Some(client) = self.client.lock().unwrap_or_else(PoisonError::into_inner).take() {
            client.end();
        }
        // Their quick shutdown: each ends its worker, and then itself.
        for server in &self.servers {
            let pid = server.id().cast_signed();
            Process { pid, command: String::new() }.signal(Signal::SIGINT);
        }
        let end = Instant::now() + END;
        for server in &mut self.servers {
            while server.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
                sleep(Duration::from_millis(2));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        for process in self.processes() {
            process.signal(Signal::SIGKILL);
        }
        if !std::thread::panicking() {
            eventually("the end of the services", || self.processes().is_empty());
        }
        let _ = std::fs::remove_dir_all::<&Path>(&self.root);
    }
}
