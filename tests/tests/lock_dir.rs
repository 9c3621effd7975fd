//! The lock directory: whose it is, who may use it, and which files stand for which names.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use dms_tests::{Held, Lab, run};

/// A user of the system that is in no group of another, and one that nobody trusts; both there on
/// every machine.
const DAEMON: u32 = 1;
const NOBODY: u32 = 65534;

/// A place like `/var/lock`, where everybody may make a directory.
fn var_lock(lab: &Lab) -> PathBuf {
    let dir = lab.path("var-lock");
    fs::create_dir(&dir).expect("room for it");
    fs::set_permissions(&dir, Permissions::from_mode(0o1777)).expect("it is ours");
    // For those who may not look where it was built. By a child: a process that is started meanwhile
    // would have the file open for writing.
    let built = dms_tests::bin_dir().join("dms-lock");
    run(lab.command("cp", &[]).arg(built).arg(lab.path("dms-lock")), b"").expect(0);
    dir
}

/// dms-lock with this directory, as this user.
fn lock_as(lab: &Lab, user: u32, dir: &Path, args: &[&str]) -> Command {
    let mut command = as_user(lab, user, &lab.path("dms-lock").display().to_string(), args);
    command.env("DMS_LOCK_DIR", dir);
    command
}

fn as_user(lab: &Lab, user: u32, program: &str, args: &[&str]) -> Command {
    let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
    let mut command = lab.command("setpriv", &[]);
    command.args(ids).arg(program).args(args);
    command
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it was made").mode() & 0o7777
}

#[test]
fn a_directory_that_is_missing_is_made_for_its_owner_alone() {
    let lab = Lab::new();
    let dir = var_lock(&lab).join("a/b");
    let mut command = lock_as(&lab, 0, &dir, &["x", "--", "true"]);
    run(&mut command, b"").expect(0);
    for (path, want) in [("", 0o755), ("x.lock", 0o600), ("x.gate", 0o600), ("life", 0o755)] {
        assert_eq!(mode(&dir.join(path)), want, "{path}");
    }
    let refused = run(&mut lock_as(&lab, DAEMON, &dir, &["-n", "x", "--", "true"]), b"");
    assert!(refused.expect(111).stderr.contains("Permission denied"), "{refused}");
}

#[test]
fn a_group_can_use_the_locks_and_others_cannot() {
    let lab = Lab::new();
    let dir = var_lock(&lab).join("locks");
    let take = |user, options: &[&str]| {
        let mut command = lock_as(&lab, user, &dir, &[options, &["x", "--", "true"]].concat());
        run(&mut command, b"").code
    };
    // Whatever the umask of whoever comes first.
    let mut first = lab.command("sh", &["-c", "umask 077; \"$0\" --group daemon x -- true"]);
    first.arg(lab.path("dms-lock")).env("DMS_LOCK_DIR", &dir);
    run(&mut first, b"").expect(0);
    for (path, want) in [("", 0o2770), ("x.lock", 0o660), ("x.gate", 0o660), ("life", 0o2770)] {
        assert_eq!(mode(&dir.join(path)), want, "{path}");
        assert_eq!(fs::metadata(dir.join(path)).expect("it was made").gid(), DAEMON, "{path}");
    }
    assert_eq!((take(DAEMON, &["-n"]), take(NOBODY, &["-n"])), (0, 111));
    let mut holder = lock_as(&lab, DAEMON, &dir, &[&["x", "y", "--"], &Held::SHELL[..]].concat());
    let holder = Held::start(&mut holder);
    assert_eq!((take(0, &["-n"]), take(0, &["-n", "--group", "daemon"])), (1, 1));
    // What a member has made is for the others, too; and without the option.
    assert_eq!(mode(&dir.join("y.lock")), 0o660);
    holder.release();
    assert_eq!(take(0, &["-n"]), 0);
    // As a Python client opens it.
    let open = format!("exec 9>{}", dir.join("x.lock").display());
    run(&mut as_user(&lab, DAEMON, "sh", &["-c", &open]), b"").expect(0);
}

#[test]
fn a_directory_of_ours_is_opened_to_a_group_later() {
    let lab = Lab::new();
    let dir = var_lock(&lab).join("locks");
    run(&mut lock_as(&lab, 0, &dir, &["x", "--", "true"]), b"").expect(0);
    let mut command = lock_as(&lab, 0, &dir, &["x", "--", "true"]);
    run(command.env("DMS_LOCK_GROUP", "daemon"), b"").expect(0);
    let modes = [dir.clone(), dir.join("x.lock"), dir.join("life")].map(|path| mode(&path));
    assert_eq!(modes, [0o2770, 0o660, 0o2770]);
    run(&mut lock_as(&lab, DAEMON, &dir, &["-n", "x", "--", "true"]), b"").expect(0);
}

#[test]
fn what_another_user_has_planted_is_refused() {
    let lab = Lab::new();
    let base = var_lock(&lab);
    let (ours, theirs, link) = (base.join("ours"), base.join("theirs"), base.join("link"));
    run(&mut lock_as(&lab, 0, &ours, &["x", "--", "true"]), b"").expect(0);
    let plant = |program: &str, args: &[&str]| {
        run(&mut as_user(&lab, NOBODY, program, args), b"").expect(0);
    };
    plant("mkdir", &[&theirs.display().to_string()]);
    plant("ln", &["-s", &ours.display().to_string(), &link.display().to_string()]);
    for (dir, what) in [(&theirs, "lock directory"), (&link, "is a symbolic link")] {
        // Nor is it trusted for a group that its owner is not in.
        for options in [&[][..], &["--group", "daemon"]] {
            let args = [options, &["x", "--", "true"]].concat();
            let refused = run(&mut lock_as(&lab, 0, dir, &args), b"");
            let said = &refused.expect(100).stderr;
            assert!(said.contains(what) && said.contains("neither root nor us"), "{refused}");
        }
    }
    assert!(fs::read_dir(&theirs).expect("it is there").next().is_none(), "it was written to");
    // They may, themselves; and root, if the owner is in the group that the locks are for.
    run(&mut lock_as(&lab, NOBODY, &theirs, &["x", "--", "true"]), b"").expect(0);
    let nogroup = NOBODY.to_string();
    let args = ["--group", &nogroup, "-n", "x", "--", "true"];
    run(&mut lock_as(&lab, 0, &theirs, &args), b"").expect(0);

    // Lock files, in a directory that a group may write to: a link, a pipe that nobody writes to.
    let shared = base.join("shared");
    let made = ["--group", "daemon", "x", "--", "true"];
    run(&mut lock_as(&lab, 0, &shared, &made), b"").expect(0);
    let plant = |program: &str, args: &[&str]| {
        run(&mut as_user(&lab, DAEMON, program, args), b"").expect(0);
    };
    let victim = lab.path("victim").display().to_string();
    plant("ln", &["-s", &victim, &shared.join("a.lock").display().to_string()]);
    plant("ln", &["-s", &victim, &shared.join("b.gate").display().to_string()]);
    plant("mkfifo", &[&shared.join("c.lock").display().to_string()]);
    for name in ["a", "b", "c"] {
        run(&mut lock_as(&lab, 0, &shared, &["-w", "5", name, "--", "true"]), b"").expect(111);
    }
    assert!(!lab.path("victim").exists(), "the link was followed");
    // And what would be opened to the group: root's file by another name, root's directory.
    let (file, dir) = (lab.path("secret"), lab.path("private"));
    fs::write(&file, "").and_then(|()| fs::create_dir(&dir)).expect("room for it");
    let before = [mode(&file), mode(&dir)];
    fs::hard_link(&file, shared.join("d.lock")).expect("one file system");
    run(&mut lock_as(&lab, 0, &shared, &["-w", "5", "d", "--", "true"]), b"").expect(111);
    fs::remove_dir_all(shared.join("life")).expect("nobody runs");
    std::os::unix::fs::symlink(&dir, shared.join("life")).expect("a fresh name");
    run(&mut lock_as(&lab, 0, &shared, &["-w", "5", "e", "--", "true"]), b"").expect(111);
    assert_eq!([mode(&file), mode(&dir)], before, "it was given away");
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let lab = Lab::new();
    let dir = var_lock(&lab);
    let refused = run(&mut lock_as(&lab, 0, &dir, &["x", "--", "true"]), b"");
    assert!(refused.expect(100).stderr.contains("is writable by everybody"), "{refused}");
    // Through a link of root's own it is the same directory, and else a good one.
    let (link, good) = (lab.path("link"), lab.path("good"));
    std::os::unix::fs::symlink(&dir, &link).expect("a fresh name");
    run(&mut lock_as(&lab, 0, &link, &["x", "--", "true"]), b"").expect(100);
    fs::remove_file(&link).and_then(|()| fs::create_dir(&good)).expect("it is ours");
    std::os::unix::fs::symlink(&good, &link).expect("a fresh name");
    run(&mut lock_as(&lab, 0, &link, &["x", "--", "true"]), b"").expect(0);
    run(&mut lock_as(&lab, 0, &link, &["--group", "daemon", "x", "--", "true"]), b"").expect(0);
    assert_eq!(mode(&good), 0o2770);
}

#[test]
fn a_file_system_that_other_hosts_may_have_is_warned_of() {
    let lab = Lab::new();
    let warned = |dir: &Path| {
        let mut command = lock_as(&lab, 0, dir, &["x", "--", "true"]);
        run(&mut command, b"").stderr.contains("locks are for one host")
    };
    var_lock(&lab);
    assert!(!warned(&lab.path("lock")));
    // FUSE, since that is what a test machine has.
    lab.mount(1, "t1");
    assert!(warned(&lab.mount_point("t1").join("locks")));
    lab.unmount(1, "t1");
}

#[test]
fn the_longest_target_id_has_a_lock_of_its_own() {
    let lab = Lab::new();
    let ids = ["x".repeat(243), format!("{}y", "x".repeat(242)), "100% ü".to_owned()];
    let requests: String = ids
        .iter()
        .map(|id| format!("{}\n", serde_json::json!({"backup_target": {"id": id}})))
        .collect();
    // The filter looks, from inside, whose lock is free.
    let mut script = "while read -r line; do ".to_owned();
    for id in &ids {
        script.push_str(&format!("env -u DMS_HELD_LOCKS dms-lock -n 'target.{id}' -- true; "));
        script.push_str("printf '%s' $?; ");
    }
    script.push_str("echo; done");
    let each = ["--each", "--", "sh", "-c", &script];
    let run = lab.feed("dms-lock", &each, &requests);
    assert_eq!(run.expect(0).stdout, "100\n010\n001\n");
}
