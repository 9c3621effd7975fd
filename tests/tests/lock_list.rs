//! Who holds the locks, who waits for them, and the clearing of those that nobody wants.

use std::fs;
use std::process::Stdio;

use dms_tests::{Held, Lab, eventually, run, waits_for_lock};
use serde_json::Value;

#[test]
fn the_list_shows_who_holds_and_who_waits() {
    let lab = Lab::new();
    let list = |args: &[&str]| -> Vec<Value> {
        lab.feed("dms-lock", &[&["--list", "--json"], args].concat(), "").expect(0).lines()
    };
    lab.feed("dms-lock", &["free", "--", "true"], "").expect(0);
    assert_eq!(list(&[]), [] as [Value; 0]);
    let holder = lab.hold(&["x", "y"]);
    let spawn = |args: &[&str]| lab.command("dms-lock", args).spawn().expect("it was built");
    let mut first = spawn(&["x", "--", "true"]);
    eventually("the first waits", || waits_for_lock(first.id()));
    let mut second = spawn(&["-s", "x", "--", "true"]);
    eventually("the second waits", || waits_for_lock(second.id()));
    let mut shared = lab.command("flock", &["-s"]);
    shared.arg(lab.path("lock/z.lock")).args(Held::SHELL);
    let stranger = Held::start(&mut shared);

    let all = list(&[]);
    let row = |lock: &str, state: &str, pid: i64| -> Vec<&Value> {
        let is_it =
            |row: &&Value| row["lock"] == lock && row["state"] == state && row["pid"] == pid;
        all.iter().filter(is_it).collect()
    };
    for lock in ["x", "y"] {
        let [held] = row(lock, "holds", holder.pid().into())[..] else { panic!("{all:#?}") };
        assert_eq!((&held["mode"], &held["level"]), (&"exclusive".into(), &0.into()));
        assert_eq!(held["command"], "sh -c echo held; read x");
        assert!(held["seconds"].as_i64().is_some_and(|seconds| seconds < 30), "{held}");
    }
    let [waits] = row("x", "waits", first.id().into())[..] else { panic!("{all:#?}") };
    assert!(waits["mode"] == "exclusive" && waits["command"].as_str().is_some(), "{waits}");
    let [waits] = row("x", "waits", second.id().into())[..] else { panic!("{all:#?}") };
    // It waits for its turn; what it wants then, nobody else knows.
    assert!(waits["mode"].is_null() && waits["seconds"].as_i64().is_some(), "{waits}");
    let theirs: Vec<_> = all.iter().filter(|row| row["lock"] == "z").collect();
    assert!(theirs.iter().any(|row| row["pid"] == stranger.pid()), "{all:#?}");
    assert!(theirs.iter().all(|row| row["mode"] == "shared"), "{all:#?}");
    assert!(list(&["y"]).iter().all(|row| row["lock"] == "y") && !list(&["y"]).is_empty());

    let text = lab.feed("dms-lock", &["--list"], "");
    let heading = text.expect(0).stdout.lines().next().map(str::to_owned);
    let words: Vec<_> = heading.as_deref().unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["LOCK", "LEVEL", "STATE", "MODE", "PID", "SECONDS", "COMMAND"]);
    assert_eq!(text.stdout.lines().count(), 1 + all.len(), "{text}");

    stranger.release();
    holder.release();
    assert!(first.wait().is_ok_and(|end| end.success()));
    assert!(second.wait().is_ok_and(|end| end.success()));
}

/// In a mount namespace of its own, so that nothing of it is left.
const ON_OVERLAY: &str = r#"mkdir lower upper work merged
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
export DMS_LOCK_DIR=$PWD/merged/lock
mkfifo go
dms-lock x -- sh -c 'echo >held; read y <go' &
holder=$!
until [ -e held ]; do :; done
dms-lock -w 60 x -- true &
until dms-lock --list --json | grep -q "\"pid\":$!,.*\"waits\""; do :; done
dms-lock --list --json | grep -q "\"pid\":$holder,.*\"holds\""
! dms-lock -n x -- true 2>said
grep -q "held by pid $holder " said
echo >go
wait $!
! dms-lock -o x -- dms-lock -w 60 x -- true 2>said
grep -q 'which waits for this' said"#;

#[test]
fn holders_are_known_also_where_the_kernel_and_stat_disagree_about_the_device() {
    let lab = Lab::new();
    let mut command = lab.command("timeout", &["60", "unshare", "-m", "sh", "-ec", ON_OVERLAY]);
    run(command.current_dir(lab.path("")), b"").expect(0);
}

#[test]
fn who_waits_in_vain_is_told_who_holds_it_also_when_that_one_has_ended() {
    let lab = Lab::new();
    let refused = || lab.feed("dms-lock", &["-w", "0.1", "x", "--", "true"], "");
    // The process that took it has left it to a child.
    let script = "exec 3<&0; cat <&3 >/dev/null & echo held; wait";
    let holder = Held::start(&mut lab.command("dms-lock", &["x", "--", "sh", "-c", script]));
    let stdin = holder.kill();
    let said = refused();
    assert!(said.expect(1).stderr.contains("(cat) for "), "{said}");
    drop(stdin);
    // One of several.
    let holders: Vec<_> = (0..3)
        .map(|_| {
            let mut command = lab.command("dms-lock", &["-s", "-w", "30", "x", "--"]);
            Held::start(command.args(Held::SHELL))
        })
        .collect();
    let said = refused();
    assert!(said.expect(1).stderr.contains(", and 2 more"), "{said}");
    // In an answer, too; it names the run of the pipeline.
    let line = r#"{"backup_target":{"id":"t1"}}"#;
    let outer = lab.hold(&["target.t1"]);
    let answer = lab.feed("dms-lock", &["--each", "-n", "--", "cat"], line).expect(1).line();
    let said = answer["error_msg"].as_str().unwrap_or_default();
    assert!(said.contains(&format!("held by pid {} (sh", outer.pid())), "{said}");
    outer.release();
    holders.into_iter().for_each(Held::release);
}

#[test]
fn clearing_removes_what_nobody_holds_wants_or_has_open() {
    let lab = Lab::new();
    let clear = || {
        let run = lab.feed("dms-lock", &["--clear"], "");
        run.expect(0).stderr.clone()
    };
    let has = |name: &str| lab.path("lock").join(name).exists();
    lab.feed("dms-lock", &["free", "--", "dms-lock", "free", "--", "true"], "").expect(0);
    let holder = lab.hold(&["held"]);
    let open = fs::File::create(lab.path("lock/open.lock")).expect("room for it");
    assert!(has("free.lock") && has("free.gate") && has("free.lock.1"));
    // The life locks of two runs that have ended, too; and that of the holder is kept.
    let said = clear();
    assert_eq!(said, "dms-lock: info: 4 removed, 3 in use\n");
    assert!(has("held.lock") && has("open.lock") && !has("free.lock") && !has("free.gate"));
    assert!(!has("free.lock.1"));
    drop(open);
    holder.release();
    clear();
    let left: Vec<_> = fs::read_dir(lab.path("lock"))
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    assert_eq!(left, ["life"], "{left:?}");
}

#[test]
fn clearing_is_safe_under_those_who_wait_and_come() {
    let lab = Lab::new();
    lab.feed("dms-lock", &["x", "--", "true"], "").expect(0);
    // Each adds one to a number, in two steps.
    fs::write(lab.path("number"), "0\n").expect("room for it");
    let add = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); \
        dms-lock -w 60 x -- sh -c 'read n <number; echo $((n+1)) >number' || exit 1; done";
    let mut adders: Vec<_> = (0..6)
        .map(|_| {
            let mut command = lab.command("sh", &["-c", add]);
            command.current_dir(lab.path("")).stdin(Stdio::null()).spawn().expect("sh is there")
        })
        .collect();
    let mut cleared = 0;
    while adders.iter_mut().any(|adder| adder.try_wait().is_ok_and(|end| end.is_none())) {
        lab.feed("dms-lock", &["--clear"], "").expect(0);
        cleared += 1;
    }
    for mut adder in adders {
        assert!(adder.wait().is_ok_and(|end| end.success()));
    }
    let number = fs::read_to_string(lab.path("number")).expect("it is there");
    assert_eq!(number, "240\n", "cleared {cleared} times");
}
