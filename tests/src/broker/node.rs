//! What a node of RabbitMQ needs to be by itself: ports, files, an environment and an epmd.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Broker;
use crate::ports;
use crate::server::Server;

/// Where Debian has it: the directory of its programs and, behind them, of its parts.
pub(super) const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
pub(super) const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Its files: what it says while it starts, and its log.
pub(super) const SAID: &str = "said";
pub(super) const LOG: &str = "log/rabbit.log";

/// Its ports: the one for AMQP, and from there on.
const DISTRIBUTION: u16 = 1;
const EPMD: u16 = 2;
pub(super) const TLS: u16 = 3;

/// How long epmd may take to start.
const EPMD_START: Duration = Duration::from_secs(30);

impl Broker {
    /// A broker with a directory, ports, and an epmd that runs.
    pub(super) fn prepare() -> Broker {
        assert!(Path::new(SERVER).exists(), "there is no {SERVER}: tests/install-deps.sh");
        let (root, port) = ports::claim("broker", ports::BROKERS, TLS + 1);
        let (epmd, vm) = (Server::new("epmd"), Server::new("broker"));
        let mut broker = Broker { root, port, epmd, vm };
        for dir in ["home", "log", "mnesia", "tree/plugins"] {
            fs::create_dir_all(broker.root.join(dir)).expect("room for it");
        }
        broker.link_tree();
        let cookie = broker.root.join("home/.erlang.cookie");
        fs::write(&cookie, format!("dms-test-{}", broker.port)).expect("room for it");
        fs::set_permissions(&cookie, Permissions::from_mode(0o400)).expect("it is ours");
        fs::write(broker.root.join("environment"), "").expect("room for it");
        fs::write(broker.root.join("plugins"), "[].").expect("room for it");
        // As a child of ours, it can be waited for: the VM would start one that is nobody's.
        let port = broker.port + EPMD;
        let mut epmd = broker.command("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        epmd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let spawn = || epmd.spawn().expect("Erlang has an epmd");
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        broker.epmd = Server::new("epmd").start(spawn, EPMD_START, listens, String::new);
        broker
    }

    /// RabbitMQ without its plugins, as links. Even plugins that are not enabled are read at each
    /// start, and looked through for each module: without them it takes 2.5 s instead of 6 s.
    fn link_tree(&self) {
        let tree = self.root.join("tree");
        let programs = fs::canonicalize(SERVER).expect("it is there");
        let home = programs.ancestors().nth(2).expect("Debian's layout");
        for dir in ["sbin", "escript"] {
            symlink(home.join(dir), tree.join(dir)).expect("a fresh directory");
        }
        for part in fs::read_dir(home.join("plugins")).expect("Debian's layout").flatten() {
            let name = part.file_name();
            let text = name.to_string_lossy();
            if !text.starts_with("rabbitmq_") || text.starts_with("rabbitmq_prelaunch") {
                symlink(part.path(), tree.join("plugins").join(&name)).expect("a fresh directory");
            }
        }
    }

    /// Writes its configuration.
    pub(super) fn configure(&self, extra_conf: &str, advanced: &str) {
        let (user, password) = (Broker::USER, Broker::PASSWORD);
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndefault_user = {user}\ndefault_pass = {password}\n\
             {extra_conf}\n",
            self.port
        );
        fs::write(self.root.join("rabbitmq.conf"), conf).expect("room for it");
        if !advanced.is_empty() {
            fs::write(self.root.join("advanced.config"), advanced).expect("room for it");
        }
    }

    /// A command in its environment, and in no other: nothing of the machine's broker is in it.
    pub(super) fn command(&self, program: &str) -> Command {
        let file = |name: &str| self.root.join(name);
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", file("home"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", (self.port + EPMD).to_string())
            .env("RABBITMQ_NODENAME", format!("dms{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", (self.port + DISTRIBUTION).to_string())
            .env("RABBITMQ_SCRIPTS_DIR", file("tree/sbin"))
            .env("RABBITMQ_PLUGINS_DIR", file("tree/plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", file("environment"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOGS", file(LOG))
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            // The script is to become the VM, and not to wait for it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_CTL_ERL_ARGS", "-start_epmd false -dist_listen false")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
            );
        command
    }
}

/// Sends the user's name and password, and succeeds when the broker goes on from there.
pub(super) fn log_in(mut stream: TcpStream) -> io::Result<()> {
    // A broker that accepts before it can do anything is asked again.
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    expect_method(&mut stream, 10)?; // Start
    let response = format!("\0{}\0{}", Broker::USER, Broker::PASSWORD);
    let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0];
    start_ok.extend(b"\x05PLAIN");
    start_ok.extend(u32::try_from(response.len()).expect("it is short").to_be_bytes());
    start_ok.extend(response.as_bytes());
    start_ok.extend(b"\x05en_US");
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(start_ok.len()).expect("it is short").to_be_bytes());
    frame.extend(start_ok);
    frame.push(0xce);
    stream.write_all(&frame)?;
    expect_method(&mut stream, 30) // Tune
}

/// Reads a frame, which has to be this method of the class connection.
fn expect_method(stream: &mut TcpStream, method: u8) -> io::Result<()> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut rest = Vec::new();
    stream.take(u64::from(size) + 1).read_to_end(&mut rest)?;
    if rest.starts_with(&[0, 10, 0, method]) { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}
