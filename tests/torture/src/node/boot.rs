//! One boot of a node: its namespaces, and its wire to the hub.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dms_tests::run;

use crate::hub;

/// A node from its boot to its end.
pub(crate) struct Boot {
    /// unshare(1), which waits for the first process.
    outer: Child,
    /// The first process, as the host counts.
    pub(super) init: i32,
    /// Which boot of the node this is.
    pub(crate) number: u32,
    /// The hub's end of the wire.
    wire: String,
}

impl Boot {
    pub(super) fn start(root: &Path, name: &str, node: u8, number: u32) -> io::Result<Boot> {
        // As the kernel's: no two are the same.
        let stamp = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let uptime = fs::read_to_string("/proc/uptime")?;
        let uptime = uptime.split('.').next().unwrap_or("0");
        let mut outer = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child"])
            // It has been up since now.
            .args(["--time", "--boottime", &format!("-{uptime}")])
            .args(["--propagation", "slave", "--"])
            .arg(std::env::current_exe()?)
            .arg("init")
            .arg(root)
            .args([name, stamp.trim(), &hub::far(node)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = outer.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ready\n" {
            return Err(io::Error::other(format!("its first process said {line:?}")));
        }
        let pid = outer.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let init = children.trim().parse().map_err(io::Error::other)?;
        let boot = Boot { outer, init, number, wire: format!("dms{node}b{number}") };
        boot.lay_wire(node);
        boot.wait_for_zfs();
        Ok(boot)
    }

    fn lay_wire(&self, node: u8) {
        let (wire, init) = (&self.wire, self.init);
        let (here, there) = (hub::near(node), hub::far(node));
        let script = format!(
            "ip link add {wire} type veth peer name wire netns {init}\n\
             ip addr add {here}/24 dev {wire}\nip link set {wire} up\n\
             nsenter -t {init} -n sh -ec 'ip link set lo up; ip addr add {there}/24 dev wire; \
             ip link set wire up; ip route add default via {here}'"
        );
        run(Command::new("sh").args(["-ec", &script]), b"").expect(0);
    }

    fn wait_for_zfs(&self) {
        let init = self.init.to_string();
        let until = "until zpool list >/dev/null 2>&1; do sleep 0.02; done";
        let enter = ["-t", &init, "-m", "-p", "timeout", "20", "sh", "-c", until];
        run(Command::new("nsenter").args(enter), b"").expect(0);
    }

    /// Ends all that runs in it, and waits until nothing of it is left.
    pub(super) fn end(&mut self) {
        // Once: its number may be another's by now.
        if self.init == 0 {
            return;
        }
        let space = super::processes::space_of(self.init);
        self.init = 0;
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let end = Instant::now() + Duration::from_secs(30);
        while let Some(space) = &space
            && !super::processes::in_space(space).is_empty()
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        // After the processes: their connections are to end in the usual way.
        let _ = Command::new("ip").args(["link", "del", &self.wire]).output();
    }
}
