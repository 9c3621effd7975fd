//! What the services need to be by themselves: a Python environment, settings, tables, keys.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use super::OpenStack;
use super::cloud::ADMIN_PASSWORD;
use crate::held::Filter;
use crate::run::run;
use crate::{certificates, ports};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openstack-requirements.txt");

/// How long a tool may take, in seconds. One takes 3 where the machine has nothing else to do.
const TOOL: &str = "120";

/// Fernet keys, 32 bytes each: what keystone-manage would make in two seconds each.
const KEY: &str = "ZG1zLXRlc3QtZG1zLXRlc3QtZG1zLXRlc3QtZG1zLTA=";

/// Where tests/install-deps.sh has put the environment with just these requirements.
fn environment() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let cache = cache.map_or_else(|| home().join(".cache"), PathBuf::from);
    let sum = run(&mut Command::new("cksum"), &fs::read(REQUIREMENTS).expect("it is ours"));
    let sum = sum.expect(0).stdout.split(' ').next().unwrap_or_default().to_owned();
    let dir = cache.join(format!("dms-tests/openstack-{sum}"));
    assert!(dir.join("complete").exists(), "there is no {}: tests/install-deps.sh", dir.display());
    dir
}

impl OpenStack {
    /// Fresh ones. The test fails, and is not skipped, where they cannot run.
    #[track_caller]
    pub(super) fn start() -> OpenStack {
        let python = environment();
        let (root, port) = ports::claim("openstack", ports::OPENSTACK, 3);
        let mut openstack = OpenStack { root, port, servers: Vec::new(), client: Mutex::new(None) };
        certificates::make(&openstack.root.join("tls"));
        openstack.configure(&python);
        thread::scope(|scope| {
            let keystone = scope.spawn(|| openstack.prepare_keystone(&python));
            openstack.prepare_barbican(&python);
            keystone.join().expect("Keystone can be prepared");
        });
        let bind = |host: &str, at: u16| format!("--bind={host}:{}", port + at);
        let file = |name: &str| openstack.tls_file(name).display().to_string();
        let tls = |binds: &[String]| {
            let certificate = format!("--certfile={}", file("server.pem"));
            [binds, &[certificate, format!("--keyfile={}", file("server.key"))]].concat()
        };
        let barbican = tls(&[bind("127.0.0.1", 1), bind("127.0.0.2", 1)]);
        openstack.servers = vec![
            openstack.serve(&python, "keystone", &tls(&[bind("127.0.0.1", 0)])),
            openstack.serve(&python, "barbican", &barbican),
            openstack.serve(&python, "plain", &[bind("127.0.0.1", 2)]),
        ];
        let mut client = Command::new(python.join("bin/python"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/openstack/client.py");
        client.arg(script).arg(openstack.tls_file("ca.pem"));
        openstack.client = Mutex::new(Some(Filter::start(&mut client)));
        openstack.fill();
        openstack
    }

    /// A home for each, with what it looks for there.
    fn configure(&self, python: &Path) {
        let write = |path: &str, text: &str| {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().expect("it is below the root")).expect("room for it");
            fs::write(&path, text).expect("room for it");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        };
        for file in ["fernet/0", "fernet/1", "credential/0", "credential/1"] {
            write(&format!("keystone/{file}"), KEY);
        }
        write("keystone/keystone.conf", &self.keystone_conf());
        write("keystone/app.py", include_str!("keystone_app.py"));
        let paste = fs::read_to_string(python.join("etc/barbican/barbican-api-paste.ini"));
        let paste = paste.expect("Barbican has it");
        for home in ["barbican", "plain"] {
            write(&format!("{home}/.barbican/barbican.conf"), &self.barbican_conf());
            write(&format!("{home}/paste.ini"), &paste);
            write(&format!("{home}/app.py"), include_str!("barbican_app.py"));
        }
    }

    fn keystone_conf(&self) -> String {
        let home = self.root.join("keystone").display().to_string();
        format!(
            "[database]\nconnection = sqlite:///{home}/data.db\n\
             [fernet_tokens]\nkey_repository = {home}/fernet\n\
             [fernet_receipts]\nkey_repository = {home}/fernet\n\
             [credential]\nkey_repository = {home}/credential\n\
             [identity]\npassword_hash_rounds = 4\n"
        )
    }

    fn barbican_conf(&self) -> String {
        let root = self.root.display();
        let auth_url = self.auth_url();
        let href = self.barbican_url();
        // Without a cache it notices at once that a token is revoked.
        format!(
            "[DEFAULT]\nhost_href = {href}\ntransport_url = fake://\n\
             [database]\nconnection = sqlite:///{root}/barbican/data.db\n\
             [queue]\nenable = False\n\
             [simple_crypto_plugin]\nkek = {KEY}\n\
             [keystone_authtoken]\nauth_url = {auth_url}\nwww_authenticate_uri = {auth_url}\n\
             cafile = {root}/tls/ca.pem\ntoken_cache_time = -1\nauth_type = password\n\
             username = admin\npassword = {ADMIN_PASSWORD}\nproject_name = admin\n\
             user_domain_id = default\nproject_domain_id = default\n"
        )
    }

    /// A program of the environment, which knows of nothing but its home.
    fn command(&self, home: &str, program: &Path) -> Command {
        let home = self.root.join(home);
        let mut command = Command::new("timeout");
        command.args(["-k", "1", TOOL]).arg(program).env_clear().env("HOME", &home);
        command.env("PATH", "/usr/bin:/bin").env("PYTHONWARNINGS", "ignore").current_dir(home);
        command
    }

    fn prepare_keystone(&self, python: &Path) {
        let manage = |args: &[&str]| {
            let mut command = self.command("keystone", &python.join("bin/keystone-manage"));
            run(command.args(["--config-file", "keystone.conf"]).args(args), b"").expect(0);
        };
        manage(&["db_sync"]);
        let url = self.auth_url();
        let urls =
            ["public", "internal", "admin"].map(|kind| format!("--bootstrap-{kind}-url={url}"));
        let urls = urls.each_ref().map(String::as_str);
        let password = format!("--bootstrap-password={ADMIN_PASSWORD}");
        let args = ["bootstrap", &password, "--bootstrap-region-id=one"];
        manage(&[&args[..], &urls].concat());
    }

    fn prepare_barbican(&self, python: &Path) {
        let mut command = self.command("barbican", &python.join("bin/barbican-manage"));
        run(command.args(["db", "upgrade"]), b"").expect(0);
    }

    /// A gunicorn with the application of this home. It listens at once, and answers once it can.
    fn serve(&self, python: &Path, home: &str, args: &[String]) -> Child {
        let log = File::create(self.root.join(home).join("log")).expect("room for it");
        let home = self.root.join(home);
        let mut command = Command::new(python.join("bin/gunicorn"));
        // It would write its title over its environment, by which it is found.
        command.env_clear().env("SPT_NOENV", "1");
        command.env("HOME", &home).env("PYTHONWARNINGS", "ignore");
        command.env("PATH", "/usr/bin:/bin").current_dir(&home).args(args);
        command.args(["--threads=4", "--timeout=120", "--no-control-socket"]);
        command.args([
            "--access-logfile=-",
            "--access-logformat=%(t)s %(r)s %(s)s %(L)s s",
            "app:application",
        ]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        command.spawn().expect("it is there")
    }
}
