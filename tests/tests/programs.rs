//! S3 programs: s3vaultfuse (by a stand-in, since it is not public: it takes what s3vaultfuse takes,
//! and mounts with s3fs), one's own, and those that somebody else has started.

use std::fs;
use std::process::{Child, Command};

use dms_tests::{Lab, Vault, eventually, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn change_record(lab: &Lab, change: impl FnOnce(&mut Value)) {
    let path = lab.path("run/mounts/t1");
    let record = fs::read(&path).expect("it was written");
    let mut record: Value = serde_json::from_slice(&record).expect("it is JSON");
    change(&mut record);
    fs::write(&path, record.to_string()).expect("room for it");
}

fn daemon_ends(lab: &Lab, daemon: &mut Child) {
    run(Command::new("umount").arg(lab.mount_point("t1")), b"").expect(0);
    daemon.wait().expect("it is ours");
}

#[test]
fn s3vaultfuse_is_told_all_in_its_environment_and_nothing_else() {
    let vault = Vault::new();
    vault.mount(1, "t1");
    let lab = &vault.lab;
    let seen = fs::read_to_string(lab.path("environment")).expect("it was started");
    let secret = fs::read_to_string(lab.path("secrets/good")).expect("it is there");
    let secret: Value = serde_json::from_str(&secret).expect("it is JSON");
    let text = |name: &str| secret[name].as_str().unwrap_or_default().to_owned();
    let at = |name: &str| lab.path(name).display().to_string();
    let mut want: Vec<String> = [
        ("AWS_ACCESS_KEY_ID", text("access_key")),
        ("AWS_SECRET_ACCESS_KEY", text("secret_key")),
        ("bucket_object_lock", "false".into()),
        (
            "helper_command",
            "sudo /usr/bin/workloadmgr-rootwrap /etc/triliovault-wlm/rootwrap.conf privsep-helper"
                .into(),
        ),
        ("log_config_append", "/etc/triliovault-object-store/object_store_logging.conf".into()),
        ("use_manifest_suffix", "false".into()),
        ("vault_data_directory", at("mnt/t1")),
        ("vault_data_directory_old", at("cache/t1")),
        ("vault_s3_auth_version", "DEFAULT".into()),
        ("vault_s3_bucket", "bucket".into()),
        ("vault_s3_endpoint_url", text("endpoint_url")),
        ("vault_s3_max_pool_connections", "500".into()),
        ("vault_s3_region_name", "us-east-1".into()),
        ("vault_s3_signature_version", "default".into()),
        ("vault_s3_ssl", "false".into()),
        ("vault_s3_ssl_cert", String::new()),
        ("vault_s3_ssl_verify", "true".into()),
        ("vault_storage_nfs_export", "bucket".into()),
        ("DMS_MOUNT_PATH", at("mnt/t1")),
        ("DMS_TARGET_ID", "t1".into()),
        ("HOME", "/nonexistent".into()),
        ("LANG", "C.UTF-8".into()),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .into();
    want.sort();
    // The shell that the stand-in is written in adds its own.
    let mut seen: Vec<&str> =
        seen.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with("PATH=")).collect();
    seen.sort_unstable();
    assert_eq!(seen, want);
    assert_eq!(vault.send("unmount", 1, "t1")["unmounted"], true);
    assert!(!lab.path("cache/t1").exists(), "it removes what it was given");
}

#[test]
fn targets_of_s3vaultfuse_are_told_apart_although_their_mounts_look_the_same() {
    let vault = Vault::new();
    let lab = &vault.lab;
    for (job, target) in [(1, "t1"), (2, "t1"), (3, "t2")] {
        vault.mount(job, target);
    }
    assert_eq!(lab.mounted("t1").as_deref(), Some("TrilioVault"));
    let list = vault.node(&["list"]).expect(0).lines();
    let targets: Vec<&Value> = list.iter().map(|line| &line["target"]).collect();
    assert_eq!(targets, [&json!("t1"), &json!("t2"), &Value::Null]);
    assert_eq!(list[2]["mounts"], 2, "the last line says how many there are: {list:?}");
    assert_eq!(vault.send("unmount", 1, "t1")["active_mounts_remaining"], 1);
    fs::write(lab.mount_point("t1").join("x"), "x").expect("it is mounted");
    // Its daemon is killed: mounted anew, under its job.
    for process in lab.processes().iter().filter(|p| p.command.contains("s3vaultfuse.py")) {
        process.signal(Signal::SIGKILL);
    }
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("t1").is_empty());
    assert_eq!(vault.mount(4, "t1")["physically_mounted"], true);
    assert_eq!(fs::read_to_string(lab.mount_point("t1").join("x")).expect("it is there"), "x");
    for (job, target) in [(2, "t1"), (4, "t1"), (3, "t2")] {
        let answer = vault.send("unmount", job, target);
        assert_eq!(answer["status"], "success", "{answer}");
    }
    assert_eq!((lab.mounted("t1"), lab.mounted("t2")), (None, None));
}

#[test]
fn a_mount_whose_record_is_lost_is_known_by_its_daemon() {
    let vault = Vault::new();
    let lab = &vault.lab;
    vault.mount(1, "t1");
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    let answer = vault.mount(2, "t1");
    assert_eq!(answer["reused_existing"], true, "{answer}");
    vault.send("unmount", 1, "t1");
    assert_eq!(vault.send("unmount", 2, "t1")["unmounted"], true);
    assert_eq!(lab.mounted("t1"), None);
}

#[test]
fn a_daemon_that_the_python_server_has_started_is_taken_on_by_its_pid_file() {
    let vault = Vault::new();
    let lab = &vault.lab;
    let mut daemon = vault.python_daemon("t1", "bucket");
    let answer = vault.mount(1, "t1");
    assert_eq!(answer["reused_existing"], true, "{answer}");
    let row = vault.node(&["ps", "t1", "--json"]).expect(0).line();
    assert_eq!(row["pid"].as_u64(), Some(daemon.id().into()), "{row}");
    assert_eq!(vault.send("unmount", 1, "t1")["unmounted"], true);
    assert!(daemon.wait().expect("it is ours").success());
    assert!(!lab.path("run/s3/t1.pid").exists());
}

#[test]
fn a_daemon_of_the_python_server_is_not_ended_by_a_record_that_says_starting() {
    let vault = Vault::new();
    let lab = &vault.lab;
    let mut daemon = vault.python_daemon("t1", "bucket");
    vault.mount(1, "t1");
    // As one is that was written for a mount of ours, by a starter that died.
    change_record(lab, |record| {
        record["state"] = json!("starting");
        record["daemon"] = Value::Null;
    });
    assert_eq!(vault.send("unmount", 1, "t1")["unmounted"], true);
    let status = daemon.wait().expect("it is ours");
    assert!(status.success(), "it did not end by itself: {status}");
    assert_eq!(lab.mounted("t1"), None);
}

#[test]
fn a_record_does_not_vouch_for_what_somebody_else_has_mounted_at_its_path() {
    let vault = Vault::new();
    let lab = &vault.lab;
    vault.mount(1, "t1");
    let record = fs::read(lab.path("run/mounts/t1")).expect("it was written");
    assert_eq!(vault.send("unmount", 1, "t1")["unmounted"], true);
    fs::create_dir(lab.path("bucket-root/other")).expect("room for it");
    let mut daemon = vault.python_daemon("t1", "other");
    // The path is the same, and the kernel gives the same numbers again.
    fs::write(lab.path("run/mounts/t1"), record).expect("room for it");
    let answer = vault.send("mount", 2, "t1");
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(answer["error_msg"].as_str().is_some_and(|m| m.contains("another bucket")), "{answer}");
    assert_eq!(lab.users("t1"), [0; 0]);
    daemon_ends(lab, &mut daemon);
}

#[test]
fn of_a_mount_that_is_taken_on_the_server_counts_and_not_only_the_buckets_name() {
    let vault = Vault::new();
    let lab = &vault.lab;
    let mut daemon = vault.python_daemon("t1", "bucket");
    let other = lab.secret("other", |secret| secret["endpoint_url"] = json!("http://127.0.0.1:9"));
    let mut request = lab.request("mount", 1, "t1");
    request["backup_target"]["secret_ref"] = json!(other);
    let answer = vault.ask(&request);
    assert_eq!(answer["error_code"], "mount", "{answer}");
    vault.mount(2, "t1");
    // What its daemon was told is on record from now on.
    let good = fs::read(lab.path("secrets/good")).expect("it is there");
    let good: Value = serde_json::from_slice(&good).expect("it is JSON");
    let storage = format!("{}/bucket", good["endpoint_url"].as_str().unwrap_or_default());
    assert_eq!(vault.node(&["list"]).lines()[0]["storage"], storage);
    assert_eq!(vault.node(&["ps", "t1", "--json"]).line()["storage"], storage);
    assert_eq!(vault.send("unmount", 2, "t1")["unmounted"], true);
    assert!(daemon.wait().expect("it is ours").success());
}

#[test]
fn a_number_in_a_pid_file_that_is_a_strangers_is_not_believed() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let stranger = lab.hold(&["somebody"]);
    fs::write(lab.path("run/s3/t1.pid"), stranger.pid().to_string()).expect("room for it");
    fs::remove_file(lab.path("run/mounts/t1")).expect("it is there");
    lab.feed("dms-mount", &["kill", &stranger.pid().to_string()], "").expect(1);
    // Nor where there is no other daemon that it could be.
    lab.daemons("t1")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("t1").is_empty());
    lab.feed("dms-mount", &["kill", "--force", &stranger.pid().to_string()], "").expect(1);
    lab.feed("dms-mount", &["kill", "--force", "--all"], "").expect(0);
    lab.unmount(1, "t1");
    assert_eq!(lab.mounted("t1"), None);
    let runs = fs::read(format!("/proc/{}/cmdline", stranger.pid()));
    assert!(runs.is_ok_and(|words| !words.is_empty()), "the stranger was ended");
    stranger.release();
}

#[test]
fn a_job_that_is_not_root_reads_and_writes_where_that_is_wanted() {
    let lab = Lab::new();
    let request = format!("{}\n", lab.request("mount", 1, "t1"));
    let as_job = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "4711", "--regid", "4711", "--clear-groups", "sh", "-c", script]);
        run(command.current_dir("/"), b"")
    };
    let file = lab.mount_point("t1").join("theirs").display().to_string();
    run(&mut lab.pipeline_command(), request.as_bytes()).expect(0);
    assert_ne!(as_job(&format!("echo x > {file}")).code, 0, "by default it is root's");
    lab.unmount(1, "t1");
    let mut pipeline = lab.pipeline_command();
    pipeline.env("DMS_MOUNT_OWNER", "4711:4711").env("DMS_MOUNT_UMASK", "077");
    run(&mut pipeline, request.as_bytes()).expect(0);
    as_job(&format!("echo backup > {file} && grep -q backup {file}")).expect(0);
    lab.unmount(1, "t1");
    assert_eq!(fs::read_to_string(lab.object("theirs")).expect("it is there"), "backup\n");
}

#[test]
fn a_profile_that_is_no_good_is_refused_at_the_start() {
    let lab = Lab::new();
    fs::write(lab.path("bad.conf"), "program = s3fs\nargument = {secret_key}\n").expect("room");
    let bad = lab.path("bad.conf").display().to_string();
    for (name, value, text) in [
        ("DMS_S3_PROGRAM", "minio", "is neither one of s3fs, s3vaultfuse nor a path"),
        ("DMS_S3_PROGRAM", "/nonexistent/x.conf", "unable to read /nonexistent/x.conf: No such"),
        ("DMS_S3_PROGRAM", &bad, "bad.conf: line 2: secret_key may stand in the environment only"),
        ("DMS_S3_CACHE_DIR", "cache", "is not absolute"),
        ("DMS_MOUNT_OWNER", "nova", "is not UID:GID"),
        ("DMS_MOUNT_UMASK", "888", "is not an octal umask"),
        ("DMS_MOUNT_ALLOW_OTHER", "yes", "is neither 0 nor 1"),
    ] {
        let mut command = lab.command("dms-mount", &["list"]);
        let refused = run(command.env(name, value), b"");
        assert!(refused.expect(100).stderr.contains(text), "{refused}");
    }
}
