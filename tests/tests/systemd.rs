//! A node as an operator has it: installed from packages, run by systemd, asked from another host.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use dms_tests::{Broker, Database, Lab, Machine, bin_dir, eventually, processes_with, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const BASE: &str = "/var/lib/trilio/triliovault-mounts";

fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A package's file, by its name.
type Package = (String, Vec<u8>);

/// The packages of this version, with the binaries under test in them.
#[track_caller]
fn build_packages(version: &str) -> Vec<Package> {
    let out = std::env::temp_dir().join(format!("dms-deb-{}-{version}", std::process::id()));
    let mut command = Command::new(project().join("packaging/deb/build"));
    command.arg(&out).env("BUILT", bin_dir()).env("VERSION", version);
    command.envs([("DPKG_DEB_COMPRESSOR_TYPE", "gzip"), ("DPKG_DEB_COMPRESSOR_LEVEL", "1")]);
    let built = run(&mut command, b"");
    let read = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        (name.to_owned(), fs::read(path).expect("it was built"))
    };
    let packages = built.expect(0).stdout.lines().map(read).collect();
    fs::remove_dir_all(&out).expect("it is ours");
    packages
}

/// Those of the first version.
#[track_caller]
fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| build_packages("0.1.0"))
}

#[track_caller]
fn install(machine: &Machine, packages: &[Package]) {
    for (name, content) in packages {
        machine.write(&format!("/root/deb/{name}"), "644", content);
    }
    machine.shell("dpkg -i /root/deb/*.deb && rm -r /root/deb");
}

/// A node with the packages installed, and everything that it asks on another host.
struct Site {
    lab: Lab,
    _broker: Arc<Broker>,
    _database: Arc<Database>,
    machine: Machine,
    /// Its name, which no other test's has: they share the broker.
    node: String,
    /// Where the other host has the broker.
    url: String,
    /// What must never be seen.
    secrets: Vec<String>,
}

impl Site {
    #[track_caller]
    fn new() -> Site {
        let (lab, broker, database) = (Lab::on_sqlite(), Broker::shared(), Database::shared());
        let machine = Machine::boot();
        install(&machine, packages());
        let url = machine.serve(&broker.url(), broker.port());
        let name = machine.address().to_string().replace('.', "_");
        let ledger = machine.serve(&database.create(&name), database.port());
        let secret = lab.secret("good", |_| ());
        let secret = fs::read_to_string(secret.trim_start_matches("file://")).expect("ours");
        let mut secret: Value = serde_json::from_str(&secret).expect("it is JSON");
        let s3 = secret["endpoint_url"].as_str().expect("it has one").to_owned();
        let port = s3.rsplit(':').next().and_then(|port| port.parse().ok()).expect("it has one");
        secret["endpoint_url"] = machine.serve(&s3, port).into();
        machine.write("/etc/trilio-dms/secrets/good", "600", secret.to_string().as_bytes());
        let settings = format!(
            "[server]\nrabbitmq_url = {}\ndb_url = {}\nsecret_dir = /etc/trilio-dms/secrets\n\
             s3_program = s3fs\n",
            url.replace('%', "%%"),
            ledger.replace('%', "%%")
        );
        machine.write("/etc/trilio-dms/server.conf", "640", settings.as_bytes());
        machine.shell("dms-ledger init");
        let secrets = [Broker::PASSWORD, Database::PASSWORD].map(str::to_owned).into_iter();
        let secrets = secrets.chain(lab.secrets().map(str::to_owned)).collect();
        Site {
            lab,
            _broker: broker,
            _database: database,
            node: format!("{}-a", machine.name()),
            machine,
            url,
            secrets,
        }
    }

    fn request(&self, action: &str, job: i32, target: &str) -> Value {
        json!({
            "context": {"request_id": format!("req-{job}")}, "request_id": format!("{action}-{job}"),
            "keystone_token": "must-not-leak", "job": {"jobid": job},
            "host": self.node, "action": action,
            "backup_target": {"id": target, "type": "s3", "status": "available",
                "secret_ref": "file:///etc/trilio-dms/secrets/good"},
        })
    }

    /// dms-call on the other host.
    fn caller(&self) -> Command {
        let mut command = self.lab.command("dms-call", &["--timeout", "60"]);
        command.env("DMS_RABBITMQ_URL", &self.url);
        self.machine.beside(&command)
    }

    #[track_caller]
    fn ask(&self, action: &str, job: i32, target: &str) -> Value {
        let request = format!("{}\n", self.request(action, job, target));
        let answer = run(&mut self.caller(), request.as_bytes()).expect(0).line();
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }

    /// The mount's line in the mount table of process 1.
    #[track_caller]
    fn mount(&self, target: &str) -> Option<String> {
        let table = self.machine.shell("cat /proc/1/mountinfo");
        let at = format!(" {BASE}/{target} ");
        table.lines().find(|line| line.contains(&at)).map(str::to_owned)
    }

    #[track_caller]
    fn wait_until_served(&self) {
        self.wait_until_served_by(&self.unit());
    }

    #[track_caller]
    fn wait_until_served_by(&self, unit: &str) {
        let status = || self.machine.property(unit, "StatusText");
        eventually("the node's queue is served", || status().starts_with("serving"));
    }

    #[track_caller]
    fn start(&self) {
        self.machine.run(&["systemctl", "start", &self.unit()]).expect(0);
        self.wait_until_served();
    }

    fn unit(&self) -> String {
        format!("dms-listen@{}.service", self.node)
    }
}

#[test]
fn the_units_are_clean_and_nothing_is_started_by_itself() {
    let machine = Machine::boot();
    let before = machine.shell("find /etc /usr /var/lib /run -xdev | grep -v /dpkg/ | sort");
    install(&machine, packages());
    let units = "cd /lib/systemd/system && systemd-analyze verify --man=no $(ls dms* | \
        sed 's/@/@n1/') 2>&1";
    assert_eq!(machine.shell(units), "");
    for (unit, most) in [
        ("listen@", 60),
        ("listen-act@", 60),
        ("reconcile@", 60),
        ("cleanup", 29),
        ("metrics", 29),
        ("metrics@", 36),
    ] {
        let unit = format!("/lib/systemd/system/dms-{unit}.service");
        let most = format!("--threshold={most}");
        machine.run(&["systemd-analyze", "security", "--offline=yes", &most, &unit]).expect(0);
    }
    for glob in ["dms-*.service", "dms-*.timer", "dms-*.scope"] {
        let active = machine.shell(&format!("systemctl list-units --no-legend '{glob}'"));
        assert_eq!(active, "", "something was started");
    }
    assert_eq!(
        machine.shell("stat -c '%a %U' /run/dms /var/lib/trilio-dms"),
        "700 root\n700 root\n"
    );
    assert_eq!(machine.shell("stat -c %a /etc/trilio-dms/server.conf"), "640\n");
    machine.run(&["dpkg", "-P", "dms-node", "dms-client", "dms-common"]).expect(0);
    let after = machine.shell("find /etc /usr /var/lib /run -xdev | grep -v /dpkg/ | sort");
    let before: HashSet<&str> = before.lines().collect();
    let mut ours = after.lines().filter(|path| path.contains("dms") || path.contains("trilio"));
    let left = ours.find(|path| !before.contains(path));
    assert_eq!(left, None, "left after the purge");
}

#[test]
fn restarts_and_upgrades_leave_mounts_and_jobs_alone_and_no_secret_is_seen() {
    let site = Site::new();
    let (machine, unit) = (&site.machine, &*site.unit());
    site.start();
    site.ask("mount", 1, "t1");
    assert_eq!(site.ask("mount", 2, "t1")["physically_mounted"], false);
    let mount = site.mount("t1").expect("it is seen by everybody on the machine");
    // A backup that takes its time.
    let job = format!(
        "exec 3>{BASE}/t1/backup; while :; do date >&3 && cp /etc/passwd {BASE}/t1/copy || exit 1; \
         sleep 0.05; done"
    );
    machine.run(&["systemd-run", "-q", "--unit=job", "sh", "-c", &job]).expect(0);
    let daemon = machine.shell("cat /run/dms/s3/t1.pid");
    let group = machine.shell(&format!("cat /proc/{}/cgroup", daemon.trim()));
    assert!(group.contains("/dms.slice/dms-mounts.slice/dms-mount-t1-"), "{group}");
    let assert_untouched = |when: &str| {
        assert_eq!(site.mount("t1").as_deref(), Some(&*mount), "{when}");
        assert_eq!(machine.shell("cat /run/dms/s3/t1.pid"), daemon, "{when}");
        assert_eq!(machine.property("job", "ActiveState"), "active", "{when}");
    };
    let main = || machine.property(unit, "MainPID");
    let first = main();
    machine.run(&["systemctl", "restart", unit]).expect(0);
    site.wait_until_served();
    assert_untouched("after a restart");
    let second = main();
    assert_ne!(first, second);
    install(machine, &build_packages("0.1.1"));
    site.wait_until_served();
    assert_untouched("after an upgrade");
    assert_ne!(second, main(), "the new version runs");

    let show = "systemctl show '*' --all; systemctl status --full '*' || test $? = 3";
    let shown = machine.shell(show);
    let logged = machine.shell("journalctl -q -o export");
    for secret in &site.secrets {
        assert!(!shown.contains(secret.as_str()), "{secret} is shown by systemd");
        assert!(!logged.contains(secret.as_str()), "{secret} is in the journal");
    }
    assert!(shown.contains("dms-mount-t1-") && logged.contains("dms-listen"), "all was looked at");
    assert_eq!(machine.shell("stat -c %a /run/dms"), "700\n");
    let keys = machine.shell("find /run/dms -name '*.cred' -printf '%m %f\\n'");
    assert_eq!(keys, "600 t1.cred\n");

    machine.run(&["systemctl", "stop", unit, "job"]).expect(0);
    assert!(site.mount("t1").is_some(), "a listener's end is no job's");
    site.start();
    site.ask("unmount", 1, "t1");
    assert_eq!(site.ask("unmount", 2, "t1")["unmounted"], true);
    assert_eq!(site.mount("t1"), None);
    eventually("the daemon's scopes end with it", || {
        machine.shell("systemctl list-units --no-legend 'dms-mount-*'").is_empty()
    });
}

#[test]
fn stop_finishes_what_runs_and_the_other_unit_takes_the_place() {
    let site = Site::new();
    let (machine, unit) = (&site.machine, &*site.unit());
    site.start();
    let servers = processes_with(&site.lab.path("bucket-root").display().to_string());
    let server = servers.iter().find(|process| process.command.contains("dms-test-s3"));
    let server = server.expect("the lab has one");
    server.signal(Signal::SIGSTOP);
    let request = format!("{}\n", site.request("mount", 1, "t1"));
    let mut caller = site.caller();
    let asking = std::thread::spawn(move || run(&mut caller, request.as_bytes()));
    eventually("the request runs", || machine.property(unit, "StatusText").contains("1 running"));
    let mut stopping = machine.command(&["systemctl", "stop", unit]);
    let mut stopping = stopping.stdout(Stdio::null()).spawn().expect("it is there");
    eventually("it is being stopped", || machine.property(unit, "ActiveState") == "deactivating");
    server.signal(Signal::SIGCONT);
    let said = asking.join().expect("it does not panic");
    assert_eq!(said.expect(0).line()["status"], "success", "{said}");
    assert!(stopping.wait().expect("it was started").success());
    assert_eq!(machine.property(unit, "Result"), "success");
    assert!(site.mount("t1").is_some());

    // The ledger is at the client now; one queue has one listener.
    site.start();
    let other = unit.replace("listen", "listen-act");
    machine.run(&["systemctl", "start", &other]).expect(0);
    eventually("the other has ended", || machine.property(unit, "ActiveState") == "inactive");
    site.wait_until_served_by(&other);
    assert_eq!(site.ask("unmount", 1, "t1")["unmounted"], true);
    let users = machine.shell("dms-ledger list --json");
    assert_eq!(users.lines().count(), 1, "no ledger was asked: {users}");
}

#[test]
fn a_listener_that_was_killed_or_hangs_is_there_again() {
    let site = Site::new();
    let (machine, unit) = (&site.machine, &*site.unit());
    let drop_in = "/etc/systemd/system/dms-listen@.service.d/test.conf";
    machine.write(drop_in, "644", b"[Service]\nWatchdogSec=1\nRestartSec=100ms\n");
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    site.start();
    for (job, signal) in [(1, "--signal=KILL"), (2, "--signal=STOP")] {
        let main = || machine.property(unit, "MainPID");
        let before = main();
        machine.run(&["systemctl", "kill", "--kill-who=main", signal, unit]).expect(0);
        eventually("it is started again", || ![&*before, "0"].contains(&&*main()));
        site.wait_until_served();
        site.ask("mount", job, "t1");
        site.ask("unmount", job, "t1");
    }
    let journal = machine.journal(unit);
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

#[test]
fn after_a_reboot_the_ledger_is_put_right_before_the_first_request() {
    let mut site = Site::new();
    site.start();
    site.ask("mount", 1, "t1");
    site.machine.run(&["systemctl", "add-wants", "dms-test.target", &site.unit()]).expect(0);
    assert_eq!(site.machine.shell("dms-ledger list --json").lines().count(), 1);
    site.machine.reboot();
    site.wait_until_served();
    let (machine, unit) = (&site.machine, &*site.unit());
    assert_eq!(machine.shell("dms-ledger list --json"), "", "no mount has outlived the boot");
    let moment =
        |unit: &str, name: &str| machine.property(unit, name).parse::<u64>().expect("a time");
    let reconcile = unit.replace("listen", "reconcile");
    let reconciled = moment(&reconcile, "ExecMainExitTimestampMonotonic");
    let begun = moment(unit, "ExecMainStartTimestampMonotonic");
    assert!(0 < reconciled && reconciled <= begun, "{reconciled} and {begun}");
    assert_eq!(machine.property(&reconcile, "Result"), "success");
    assert_eq!(site.ask("mount", 2, "t1")["physically_mounted"], true);
    site.ask("unmount", 2, "t1");
}

#[test]
fn the_journal_tells_a_requests_whole_story_tool_by_tool() {
    let site = Site::new();
    let machine = &site.machine;
    site.start();
    site.ask("mount", 7, "t1");
    site.ask("mount", 8, "t1");
    let story = |tool: &str, id: &str| {
        let said = machine.shell(&format!("journalctl -q -o short-monotonic -t {tool}"));
        said.lines()
            .filter(|line| line.contains(id))
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let about = "(request mount-7, job 7, target t1, req-7)";
    assert!(story("dms-mount", about).contains("s3fs spawned successfully for target t1"));
    assert!(story("dms-ledger", about).contains("active mount(s) for"));
    assert!(!story("dms-mount", "mount-7").contains("job 8"));
    // Each line has its priority, and not as words.
    site.machine.run(&["sh", "-ec", "kill -9 $(cat /run/dms/s3/t1.pid)"]).expect(0);
    site.ask("mount", 9, "t1");
    let warnings = machine.shell("journalctl -q -o cat -p warning -t dms-mount");
    assert!(
        warnings.contains("dms-mount: warning: ") && !warnings.contains("info: "),
        "{warnings}"
    );
    assert!(!warnings.contains("<4>"), "{warnings}");
    for job in [7, 8, 9] {
        site.ask("unmount", job, "t1");
    }
}

#[test]
fn maintenance_runs_by_its_units() {
    let site = Site::new();
    let (machine, unit) = (&site.machine, &*site.unit());
    site.start();
    site.ask("mount", 1, "t1");
    machine.write("/etc/trilio-dms/metrics.env", "644", b"METRICS_FILE=/var/lib/dms.prom\n");
    let of_node = unit.replace("listen", "metrics");
    machine.shell("mkdir -p /var/lib/prometheus/node-exporter");
    for unit in [
        "dms-metrics.service",
        &of_node,
        "dms-cleanup.service",
        &unit.replace("listen", "reconcile"),
    ] {
        let started = machine.run(&["systemctl", "start", unit]);
        assert_eq!(started.code, 0, "{started}\n{}", machine.journal(unit));
    }
    let numbers = machine.shell("cat /var/lib/dms.prom");
    assert!(numbers.contains("\ndms_active_mounts{"), "{numbers}");
    let file = format!("/var/lib/prometheus/node-exporter/dms-{}.prom", site.node);
    let numbers = machine.shell(&format!("cat {file}"));
    assert!(numbers.contains("\ndms_daemon_resident_bytes{"), "{numbers}");
    assert_eq!(machine.shell("dms-ledger list --json").lines().count(), 1, "it is in use");
    // What is old and in use is not aged away.
    let files = "find /run/dms /run/lock/trilio-dms | sort";
    let before = machine.shell(files);
    machine.shell("find /run/dms /run/lock/trilio-dms -exec touch -h -d '1 year ago' {} +");
    machine.shell("systemd-tmpfiles --clean");
    assert_eq!(machine.shell(files), before);
    let timer = unit.replace("listen", "reconcile").replace("service", "timer");
    for timer in ["dms-metrics.timer", "dms-cleanup.timer", &timer] {
        machine.run(&["systemctl", "start", timer]).expect(0);
    }
    site.ask("unmount", 1, "t1");
}
