//! A machine with systemd as its process 1, and a second host on a wire to it: for what only a service
//! manager shows. It is this host's root, under an overlay in memory; nothing it does is kept.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::process::{Process, processes_with};
use crate::run::{Run, eventually, run};

/// The machine, its network and the other host's.
pub struct Machine {
    name: String,
    /// Of the two ends of the wire, the other host's is `.1`, the machine's `.2`.
    network: [u8; 3],
    child: Child,
    leader: i32,
    console: PathBuf,
}

impl Machine {
    /// Boots one. The test fails, and is not skipped, where it cannot.
    #[track_caller]
    pub fn boot() -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (number, pid) = (COUNT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let name = format!("dms{pid}x{number}");
        let [a, b, ..] = (pid * 8 + number % 8).to_le_bytes();
        let network = [10, a, b];
        lay_wire(&name, network);
        let console = std::env::temp_dir().join(format!("dms-console-{name}"));
        let log = File::create(&console).expect("a temporary file");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/machine/boot.sh");
        let child = Command::new("ip")
            .args(["netns", "exec", &node(&name), "unshare", "-m", "--propagation", "slave"])
            .args(["bash", script, &name])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("it is a file"))
            .stderr(log)
            .spawn()
            .expect("ip(8) is installed");
        let mut machine = Machine { name, network, child, leader: 0, console };
        machine.wait_until_up();
        machine
    }

    /// Waits for its process 1, and for that to have done what a boot does.
    #[track_caller]
    fn wait_until_up(&mut self) {
        let before = self.leader;
        eventually("the machine's process 1", || {
            self.leader = self.process_one().unwrap_or(before);
            self.leader != before
        });
        eventually("the machine's boot", || {
            let state = self.run(&["systemctl", "is-system-running"]).stdout;
            assert!(self.child.try_wait().expect("it is ours").is_none(), "{}", self.console());
            ["running", "degraded"].contains(&state.trim())
        });
    }

    fn process_one(&self) -> Option<i32> {
        let found = processes_with(&format!("dms-machine={}", self.name));
        let is_it = |process: &&Process| {
            let program = process.command.split(' ').next().unwrap_or_default();
            ["systemd", "init"].iter().any(|name| program.rsplit('/').next() == Some(*name))
        };
        found.iter().find(is_it).map(|process| process.pid)
    }

    fn console(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command on the machine, as root.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-a", "--"]).args(args);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        run(&mut self.command(args), b"")
    }

    /// A script on the machine; it has to succeed. Returns what it printed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.run(&["sh", "-ec", script]).expect(0).stdout.clone()
    }

    /// Writes a file there, with this mode.
    #[track_caller]
    pub fn write(&self, path: &str, mode: &str, content: &[u8]) {
        let script = r#"mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1""#;
        let mut command = self.command(&["sh", "-ec", script, "sh", path, mode]);
        run(&mut command, content).expect(0);
    }

    /// A property of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let said = self.run(&["systemctl", "show", "-P", name, unit]);
        said.expect(0).stdout.trim().to_owned()
    }

    /// What a unit has logged.
    #[track_caller]
    pub fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "-q", "-o", "cat", "-u", unit]).stdout
    }

    /// Shuts down, and boots again: what is in memory and in /run is gone.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.run(&["systemctl", "reboot"]);
        self.wait_until_up();
    }

    /// A command on the other host.
    pub fn beside(&self, command: &Command) -> Command {
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &beside(&self.name)]);
        outer.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    /// The other host's address.
    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// A service of this test, on 127.0.0.1, is had on the other host at the same port, until the
    /// test ends; returns the URL as it is there.
    #[track_caller]
    pub fn serve(&self, url: &str, port: u16) -> String {
        let (name, address) = (beside(&self.name), self.address());
        // A socket stays in the namespace that it was made in; only this thread changes its own.
        let listen = move || -> io::Result<TcpListener> {
            setns(File::open(format!("/run/netns/{name}"))?, CloneFlags::CLONE_NEWNET)?;
            TcpListener::bind((address, port))
        };
        let listener = thread::spawn(listen).join().expect("it does not panic");
        let listener = listener.expect("the namespace is ours");
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
                    join(&near, &far);
                }
            }
        });
        url.replace("127.0.0.1", &address.to_string())
    }
}

/// Each says what the other says, until both have ended.
fn join(near: &TcpStream, far: &TcpStream) {
    for (from, to) in [(near, far), (far, near)] {
        let pair = (from.try_clone(), to.try_clone());
        if let (Ok(mut from), Ok(mut to)) = pair {
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    }
}

fn node(name: &str) -> String {
    format!("{name}n")
}

fn beside(name: &str) -> String {
    format!("{name}b")
}

/// Two namespaces, and a wire between them.
#[track_caller]
fn lay_wire(name: &str, [a, b, c]: [u8; 3]) {
    let (node, beside) = (node(name), beside(name));
    let (one, two) = (format!("{a}.{b}.{c}.1/30"), format!("{a}.{b}.{c}.2/30"));
    let script = format!(
        "ip netns add {node} && ip netns add {beside} \
         && ip link add wire netns {node} type veth peer name wire netns {beside} \
         && ip -n {beside} addr add {one} dev wire && ip -n {node} addr add {two} dev wire \
         && for n in {node} {beside}; do ip -n $n link set lo up; ip -n $n link set wire up; done"
    );
    run(Command::new("sh").args(["-ec", &script]), b"").expect(0);
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its process 1 all its processes end, its mounts, and whoever has started it.
        if self.leader != 0 {
            Process { pid: self.leader, command: String::new() }.signal(Signal::SIGKILL);
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        for name in [node(&self.name), beside(&self.name)] {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
        remove_cgroups(&Path::new("/sys/fs/cgroup").join(&self.name));
        let _ = fs::remove_file(&self.console);
    }
}

fn remove_cgroups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
