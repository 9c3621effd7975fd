//! S3 programs: s3vaultfuse (by a stand-in, since it is not public: it takes what s3vaultfuse takes,
//! and mounts with s3fs), one's own, and those that somebody else has started.

use std::fs;
use std::process::{Child, Command};

use dms_tests::{Filter, Lab, Vault, eventually, run, script};
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

/// It says a megabyte before it mounts and another one when it is told to, and ends with s3fs.
const TALKER: &str = r#"
talk() { head -c 1000000 /dev/zero | tr '\0' x >&2; echo "$1" >&2; }
talk first
s3fs "$@" &
read x <"$0.go"
talk last
: >"$0.has-talked"
wait"#;

#[test]
fn a_program_that_talks_is_never_kept_waiting_for_somebody_who_listens() {
    let lab = Lab::new();
    let talker = lab.path("talker");
    script(&talker, TALKER);
    let go = lab.path("talker.go");
    run(Command::new("mkfifo").arg(&go), b"").expect(0);
    let profile = include_str!("../../tools/dms-mount/profiles/s3fs.conf");
    let ours = format!("program = {}", talker.display());
    let profile = profile.replace("program = s3fs", &ours);
    fs::write(lab.path("talker.conf"), profile).expect("room for it");
    let send = |action: &str| {
        let mut pipeline = lab.pipeline_command();
        pipeline.env("DMS_S3_PROGRAM", lab.path("talker.conf"));
        run(&mut pipeline, format!("{}\n", lab.request(action, 1, "t1")).as_bytes())
    };
    assert_eq!(send("mount").line()["physically_mounted"], true);
    // Whoever has mounted it has ended since.
    fs::write(&go, "go\n").expect("it reads");
    eventually("it has talked", || lab.path("talker.has-talked").exists());
    fs::write(lab.mount_point("t1").join("x"), "still there").expect("it is mounted");
    let log = |name: &str| fs::read(lab.path("run/s3").join(name)).unwrap_or_default();
    eventually("its last words are kept", || log("t1.log").ends_with(b"last\n"));
    assert!(log("t1.log").len() + log("t1.log.1").len() < 1_200_000);
    let unmounted = send("unmount");
    assert_eq!(unmounted.line()["unmounted"], true, "{unmounted}");
    assert!(unmounted.stderr.len() < 5000, "it is all told: {}", unmounted.stderr.len());
}

/// It says where it mounts, waits for a word and says that, too. There is no place for it at t3.
const GOSSIP: &str = r#"
for path; do case $path in */t3) echo "no place at $path" >&2; exit 1;; */t?) break;; esac; done
echo "at $path" >&2
s3fs "$@" &
read word <"$0.$(basename "$path")"
echo "$word" >&2
wait"#;

#[test]
fn who_keeps_the_words_of_a_runs_daemons_is_one_and_ends_with_the_last_of_them() {
    let lab = Lab::new();
    let gossip = lab.path("gossip");
    script(&gossip, GOSSIP);
    let profile = include_str!("../../tools/dms-mount/profiles/s3fs.conf");
    let ours = format!("program = {}", gossip.display());
    fs::write(lab.path("gossip.conf"), profile.replace("program = s3fs", &ours)).expect("room");
    let drains = || {
        let mut all = lab.processes();
        all.retain(|process| process.command.contains(" drain "));
        all
    };
    let log = |name: &str| fs::read_to_string(lab.path("run/s3").join(name)).unwrap_or_default();
    let mut command = lab.pipeline_command();
    let mut pipeline = Filter::start(command.env("DMS_S3_PROGRAM", lab.path("gossip.conf")));
    for target in ["t1", "t2"] {
        run(Command::new("mkfifo").arg(lab.path(&format!("gossip.{target}"))), b"").expect(0);
        let answer = pipeline.ask(&lab.request("mount", 1, target));
        assert_eq!(answer["physically_mounted"], true, "{answer}");
        // Of one that does not mount, the words are told each time.
        let refused = pipeline.ask(&lab.request("mount", 1, "t3"));
        assert!(refused.to_string().contains("said: no place at "), "{refused}");
    }
    assert_eq!(drains().len(), 1, "{:?}", drains());
    for _ in 0..100 {
        let refused = pipeline.ask(&lab.request("mount", 1, "t3"));
        assert!(refused.to_string().contains("said: no place at "), "{refused}");
    }
    // A process has not descriptors for any number of them.
    assert_eq!(drains().len(), 2, "{:?}", drains());
    pipeline.end();
    eventually("only that of daemons that run is left", || drains().len() == 1);
    for (target, left) in [("t1", 1), ("t2", 0)] {
        let path = lab.mount_point(target).display().to_string();
        fs::write(lab.path(&format!("gossip.{target}")), "bye\n").expect("it reads");
        let said = || log(&format!("{target}.log"));
        eventually("all it says is kept", || {
            said().starts_with(&format!("at {path}\n")) && said().ends_with("bye\n")
        });
        lab.unmount(1, target);
        eventually("it ends with the last", || drains().len() == left);
    }
}

#[test]
fn when_who_keeps_the_words_is_gone_the_next_daemon_has_another() {
    let lab = Lab::new();
    let drains = || {
        let mut all = lab.processes();
        all.retain(|process| process.command.contains(" drain "));
        all
    };
    let mut pipeline = Filter::start(&mut lab.pipeline_command());
    let mut mount = |target: &str| pipeline.ask(&lab.request("mount", 1, target));
    assert_eq!(mount("t1")["physically_mounted"], true);
    drains()[0].signal(Signal::SIGKILL);
    eventually("it is gone", || drains().is_empty());
    assert_eq!(mount("t2")["physically_mounted"], true);
    assert_eq!(drains().len(), 1);
    fs::write(lab.mount_point("t1").join("x"), "still there").expect("it is mounted");
    pipeline.end();
    lab.unmount(1, "t1");
    lab.unmount(1, "t2");
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
