//! Settings: where they come from, which one counts, and what is said of those that are no good.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use dms_tests::{Lab, Run, bin_dir, run};

const TOOLS: [&str; 5] = ["dms-lock", "dms-ledger", "dms-mount", "dms-listen", "dms-call"];

/// A tool with no variable set but these.
fn tool(name: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(bin_dir().join(name));
    command.env_clear().envs(variables.iter().copied());
    command
}

/// What the tool goes by, and where it has it from: `VALUE FROM`.
#[track_caller]
fn shown(name: &str, setting: &str, variables: &[(&str, &str)]) -> String {
    let said = run(tool(name, variables).arg("--print-config"), b"");
    let line = said.expect(0).stdout.lines().find(|line| line.split(' ').next() == Some(setting));
    let line = line.unwrap_or_else(|| panic!("{name} has no {setting}\n{said}"));
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn write(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.path(name);
    fs::create_dir_all(path.parent().expect("it is below the lab")).expect("room for it");
    fs::write(&path, text).expect("room for it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the lab's paths are UTF-8")
}

/// dms-ledger with this file.
fn with(file: &Path) -> Run {
    run(tool("dms-ledger", &[("DMS_CONFIG", text(file))]).arg("--print-config"), b"")
}

#[test]
fn every_tool_shows_its_settings_and_hides_passwords() {
    let url = "mysql://dms:s3cr3t@db/dms";
    for name in TOOLS {
        let shown = shown(name, "db_url", &[("DMS_DB_URL", url)]);
        assert_eq!(shown, "mysql://dms:***@db/dms environment", "{name}");
        assert_eq!(self::shown(name, "lock_timeout", &[]), "300 default", "{name}");
        // What is handed on to a command is not for us.
        run(tool(name, &[]).args(["--no-such-option", "--", "--print-config"]), b"").expect(100);
    }
}

#[test]
fn the_environment_beats_a_credential_and_that_beats_the_file() {
    let lab = Lab::new();
    let file = write(&lab, "server.conf", "[server]\ndb_url = sqlite:///file\ntimeout = 7\n");
    let credential = write(&lab, "credentials/db_url", "sqlite:///credential\n");
    let directory = text(credential.parent().expect("it has one"));
    let file = ("DMS_CONFIG", text(&file));
    let from_file = format!("sqlite:///file {}:2", file.1);
    assert_eq!(shown("dms-ledger", "db_url", &[file]), from_file);
    let credential = ("CREDENTIALS_DIRECTORY", directory);
    assert_eq!(
        shown("dms-ledger", "db_url", &[file, credential]),
        "sqlite:///credential credential"
    );
    let variable = ("DMS_DB_URL", "sqlite:///variable");
    let all = [file, credential, variable];
    assert_eq!(shown("dms-ledger", "db_url", &all), "sqlite:///variable environment");
    // The old name of another setting, in the same order.
    assert_eq!(shown("dms-call", "request_timeout", &[file]), format!("7 {}:3", file.1));
    let variable = ("DMS_REQUEST_TIMEOUT", "8");
    assert_eq!(shown("dms-call", "request_timeout", &[file, variable]), "8 environment");
}

#[test]
fn a_users_file_beats_the_systems_and_is_not_the_nodes() {
    let lab = Lab::new();
    let personal = write(&lab, ".trilio-dms/client.conf", "[client]\nlog_level = ERROR\n");
    for (path, content) in [
        ("etc/trilio-dms/client.conf", "[client]\nlog_level = WARNING\ndb_url = sqlite:///c\n"),
        ("etc/trilio-dms/server.conf", "[server]\nlog_level = DEBUG\nnode_id = n1\n"),
    ] {
        write(&lab, path, content);
    }
    // As they would be in the system's /etc, which is not ours to write to.
    let system = |name: &str, setting: &str| {
        let script = r#"mount --bind "$1"/etc /etc && HOME=$1 exec "$2" --print-config"#;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(lab.path("")).arg(bin_dir().join(name));
        let said = run(command.env_remove("DMS_CONFIG"), b"");
        let line = said.expect(0).stdout.lines().find(|line| line.starts_with(setting));
        let words = line.unwrap_or_else(|| panic!("{said}")).split_whitespace().skip(1);
        words.collect::<Vec<_>>().join(" ")
    };
    for name in ["dms-lock", "dms-ledger", "dms-call"] {
        assert_eq!(system(name, "log_level"), format!("ERROR {}:2", personal.display()));
        assert_eq!(system(name, "db_url"), "sqlite:///c /etc/trilio-dms/client.conf:3");
        assert_eq!(system(name, "node_id"), "n1 /etc/trilio-dms/server.conf:3");
    }
    for name in ["dms-mount", "dms-listen"] {
        assert_eq!(system(name, "log_level"), "DEBUG /etc/trilio-dms/server.conf:2");
    }
}

#[test]
fn a_value_that_is_no_good_is_told_with_its_line_and_a_key_that_is_unknown_is_a_warning() {
    let lab = Lab::new();
    let file = write(&lab, "server.conf", "[server]\n\nlock_timeout = soon\n");
    let said = with(&file);
    let want = format!("{}:3: lock_timeout \"soon\" is not a number of seconds", file.display());
    assert!(said.expect(100).stderr.contains(&want), "{said}");
    let file = write(&lab, "server.conf", "[server]\nlog_level = DEBUG\nlock_timeouts = 3\n[x]\n");
    let said = with(&file);
    let lines: Vec<&str> = said.expect(0).stderr.lines().collect();
    let name = file.display();
    assert_eq!(
        lines,
        [
            format!("dms-ledger: warning: {name}:4: there is no section [x] here"),
            format!("dms-ledger: warning: {name}:3: there is no setting lock_timeouts"),
        ]
    );
    let file = write(&lab, "server.conf", "[server]\nlog_level = DEBUG\n  more\n");
    let want = format!("{}:3: an indented line", file.display());
    assert!(with(&file).expect(100).stderr.contains(&want));
    let said = with(Path::new("/nonexistent/server.conf"));
    assert!(said.expect(100).stderr.contains("/nonexistent/server.conf: No such file"), "{said}");
    // Help has to be had with any file.
    let mut help = tool("dms-ledger", &[("DMS_CONFIG", "/nonexistent")]);
    run(help.arg("--help"), b"").expect(0);
}

#[test]
fn a_file_that_others_may_write_is_not_used() {
    let lab = Lab::new();
    let file = write(&lab, "server.conf", "[server]\nrabbitmq_url = amqp://u:pw@h/\n");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("ours");
    mode(0o620);
    assert!(with(&file).expect(100).stderr.contains("may be written by others: not used"));
    mode(0o644);
    let said = with(&file);
    let open = "has a password in it, and everybody may read it";
    assert!(said.expect(0).stderr.contains(open) && !said.stderr.contains("pw"), "{said}");
    mode(0o640);
    assert_eq!(with(&file).expect(0).stderr, "");
    chown(&file, Some(12_345), None).expect("we are root");
    assert!(with(&file).expect(100).stderr.contains("is owned by uid 12345: not used"));
}

#[test]
fn a_whole_pipeline_goes_by_one_file() {
    let lab = Lab::new();
    let settings = format!(
        "[DEFAULT]\nlog_level: ERROR\n[server]\nnode_id = compute-07\nstate_dir = {0}/state\n\
         lock_dir = {0}/lock\nrun_dir = {0}/run\nmount_base_path = {0}/mnt\nsecret_dir = {0}/secrets\n",
        lab.path("").display().to_string().trim_end_matches('/')
    );
    let file = write(&lab, "server.conf", &settings);
    fs::create_dir_all(lab.path("state")).expect("room for it");
    let path = std::env::var("PATH").expect("a shell has one");
    let path = format!("{}:{path}", bin_dir().display());
    let variables = [("DMS_CONFIG", text(&file)), ("PATH", &path)];
    let script = "dms-lock --each -- sh -c 'dms-ledger plan | dms-mount | dms-ledger commit'";
    let go = |action: &str| {
        let mut request = lab.request(action, 1, "t1");
        request["host"] = "compute-07".into();
        request["backup_target"]["filesystem_export_mount_path"] =
            text(&lab.mount_point("t1")).into();
        let mut command = Command::new("sh");
        command.args(["-c", script]).env_clear().envs(variables);
        run(&mut command, format!("{request}\n").as_bytes())
    };
    let said = go("mount");
    assert_eq!(said.expect(0).line()["status"], "success", "{said}");
    assert_eq!(said.stderr, "", "an error at most is logged");
    assert!(lab.mounted("t1").is_some() && lab.path("state/ledger.db").exists());
    let said = go("unmount");
    assert_eq!(said.expect(0).line()["unmounted"], true, "{said}");
    assert_eq!(lab.mounted("t1"), None);
}

#[test]
fn no_tool_runs_with_the_rights_of_somebody_else_than_its_caller() {
    let lab = Lab::new();
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (name, mode) in [("dms-lock", 0o4755), ("dms-mount", 0o2755)] {
        let copy = lab.path(name);
        fs::copy(bin_dir().join(name), &copy).expect("room for it");
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("it is ours");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        let said = run(command.arg("--print-config"), b"");
        let want = format!("{name}: fatal: setuid or setgid: not to be run as somebody else\n");
        assert_eq!(said.expect(100).stderr, want);
    }
}
