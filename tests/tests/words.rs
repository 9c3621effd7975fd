//! What daemons say: it is kept, within bounds, by whoever and for as long as they run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dms_tests::{Filter, Lab, Process, eventually, run, script};
use nix::sys::signal::Signal;

/// A profile for this script, which is called as s3fs is.
fn profile(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let program = lab.path(name);
    script(&program, text);
    let profile = include_str!("../../tools/dms-mount/profiles/s3fs.conf");
    let ours = format!("program = {}", program.display());
    let path = lab.path(&format!("{name}.conf"));
    fs::write(&path, profile.replace("program = s3fs", &ours)).expect("room for it");
    path
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
    let talker = profile(&lab, "talker", TALKER);
    let go = lab.path("talker.go");
    run(Command::new("mkfifo").arg(&go), b"").expect(0);
    let send = |action: &str| {
        let mut pipeline = lab.pipeline_command();
        pipeline.env("DMS_S3_PROGRAM", &talker);
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

/// Those who keep what the daemons of the node say.
fn drains(lab: &Lab) -> Vec<Process> {
    let mut all = lab.processes();
    all.retain(|process| process.command.contains(" drain "));
    all
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
    let gossip = profile(&lab, "gossip", GOSSIP);
    let drains = || drains(&lab);
    let log = |name: &str| fs::read_to_string(lab.path("run/s3").join(name)).unwrap_or_default();
    let mut command = lab.pipeline_command();
    let mut pipeline = Filter::start(command.env("DMS_S3_PROGRAM", gossip));
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
    let drains = || drains(&lab);
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
