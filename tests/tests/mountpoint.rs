//! The directory below a mount, and what is done where nobody can say what is there: it is never
//! guessed that nothing is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use dms_tests::{Filter, Held, Lab, Run, eventually, mount_source, run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The pipeline, with all that it says.
fn send(lab: &Lab, request: &Value) -> Run {
    lab.feed("dms-pipeline", &[], &format!("{request}\n"))
}

/// s3fs ends, and takes its mount along.
fn lose_mount(lab: &Lab, target: &str) {
    lab.daemons(target)[0].signal(Signal::SIGTERM);
    eventually("it is not mounted", || lab.mounted(target).is_none());
}

fn tmpfs(path: &Path) {
    let data = None::<&str>;
    mount(Some("stranger"), path, Some("tmpfs"), MsFlags::empty(), data).expect("root can mount");
}

fn writable(path: &Path) -> Command {
    let mut command = Command::new("chattr");
    command.arg("-i").arg(path);
    command
}

#[test]
fn files_in_the_mount_point_are_not_hidden_by_a_mount() {
    let lab = Lab::new();
    fs::create_dir_all(lab.mount_point("t1")).expect("it can be made");
    fs::write(lab.mount_point("t1").join("old"), "precious").expect("room for it");
    let answer = lab.send(&lab.request("mount", 1, "t1"));
    assert_eq!(answer["error_code"], "mount", "{answer}");
    assert!(answer["error_msg"].as_str().is_some_and(|msg| msg.contains("not empty")), "{answer}");
    assert_eq!(fs::read_to_string(lab.mount_point("t1").join("old")).expect("there"), "precious");
    assert_eq!((lab.mounted("t1"), lab.daemons("t1")), (None, vec![]));
}

#[test]
fn a_path_through_another_mount_is_refused() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let mut request = lab.request("mount", 2, "t2");
    request["backup_target"]["filesystem_export_mount_path"] =
        json!(lab.mount_point("t1/below").display().to_string());
    let answer = lab.send(&request);
    assert_eq!(answer["error_code"], "validation", "{answer}");
    assert!(!lab.object("below").exists());
}

#[test]
fn two_targets_that_meet_at_one_path_do_not_cover_each_other() {
    let lab = Lab::new();
    // The base by two names: to the ledger, these are two paths.
    std::os::unix::fs::symlink(lab.path("mnt"), lab.path("also")).expect("a fresh name");
    let bases = format!("{}:{}", lab.path("mnt").display(), lab.path("also").display());
    for round in 0..10 {
        let answers: Vec<Value> = thread::scope(|scope| {
            let lab = &lab;
            let bases = &bases;
            let jobs = [(1, "a", "mnt"), (2, "b", "also")].map(|(job, target, base)| {
                scope.spawn(move || {
                    let mut request = lab.request("mount", job, target);
                    request["backup_target"]["filesystem_export_mount_path"] =
                        json!(lab.path(base).join("x").display().to_string());
                    let mut pipeline = lab.pipeline_command();
                    pipeline.env("DMS_MOUNT_BASE", bases);
                    run(&mut pipeline, format!("{request}\n").as_bytes()).line()
                })
            });
            jobs.into_iter().map(|job| job.join().expect("it answers")).collect()
        });
        let told_yes: Vec<_> = (0..2).filter(|&n| answers[n]["status"] == "success").collect();
        assert_eq!(told_yes.len(), 1, "round {round}: {answers:?}");
        let (job, target) = [(1, "a"), (2, "b")][told_yes[0]];
        let source = mount_source(&lab.path("mnt/x"));
        assert_eq!(source, Some(format!("dms:{target}/bucket")), "round {round}");
        let mut pipeline = lab.pipeline_command();
        pipeline.env("DMS_MOUNT_BASE", &bases);
        let request = format!("{}\n", lab.request("unmount", job, target));
        assert_eq!(run(&mut pipeline, request.as_bytes()).line()["unmounted"], true);
        assert_eq!(mount_source(&lab.path("mnt/x")), None, "round {round}: something is left");
    }
}

#[test]
fn a_mount_that_is_hidden_by_another_is_not_taken_for_working() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // A volume is mounted over the base: the target's mount is there, but no path leads to it.
    tmpfs(&lab.path("mnt"));
    for with_directory in [false, true] {
        if with_directory {
            fs::create_dir(lab.mount_point("t1")).expect("it is a tmpfs");
        }
        for (action, job) in [("mount", 2), ("unmount", 1)] {
            let answer = lab.send(&lab.request(action, job, "t1"));
            assert_eq!(answer["error_code"], action, "{answer}");
            assert!(answer["error_msg"].as_str().is_some_and(|m| m.contains("hidden")), "{answer}");
        }
    }
    assert_eq!(lab.users("t1"), [1]);
    umount2(&lab.path("mnt"), MntFlags::empty()).expect("nobody uses it");
    lab.mount(2, "t1");
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_job_whose_mount_went_away_cannot_write_into_the_directory_below_it() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // At TERM s3fs takes its mount along: the job's path is a bare directory from now on.
    lab.daemons("t1")[0].signal(Signal::SIGTERM);
    eventually("it is not mounted", || lab.mounted("t1").is_none());
    let path = lab.mount_point("t1");
    let why = fs::write(path.join("backup"), "lost").expect_err("it was written beside the mount");
    assert_eq!(why.raw_os_error(), Some(nix::errno::Errno::EPERM as i32), "{why}");
    assert!(fs::create_dir(path.join("d")).is_err() && fs::remove_dir(&path).is_err());
    // The next mount goes over it, and the last unmount takes all of it away.
    assert_eq!(lab.mount(2, "t1")["physically_mounted"], true);
    fs::write(path.join("backup"), "kept").expect("it is mounted");
    assert!(lab.object("backup").exists());
    lab.unmount(1, "t1");
    lab.unmount(2, "t1");
    lab.assert_gone("t1");
}

#[test]
fn a_directory_that_was_there_before_is_as_it_was_afterwards() {
    let lab = Lab::new();
    fs::create_dir_all(lab.mount_point("t1")).expect("it can be made");
    lab.mount(1, "t1");
    lab.unmount(1, "t1");
    fs::write(lab.mount_point("t1").join("own"), "x").expect("it is the admin's again");
}

#[test]
fn what_lies_in_the_directory_below_a_mount_is_never_removed() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lose_mount(&lab, "t1");
    let path = lab.mount_point("t1");
    // Whoever is root can do that, and may have had to.
    run(&mut writable(&path), b"").expect(0);
    fs::create_dir(path.join("dir")).expect("it is an ordinary directory");
    fs::write(path.join("dir/backup"), "precious").expect("room for it");
    let run = send(&lab, &lab.request("unmount", 1, "t1"));
    assert_eq!(run.line()["unmounted"], true, "{run}");
    let words = format!("left {} behind: unable to remove", path.display());
    assert!(run.stderr.contains(&words), "{run}");
    assert_eq!(fs::read_to_string(path.join("dir/backup")).expect("it is there"), "precious");
}

#[test]
fn a_directory_that_another_target_is_about_to_be_mounted_on_is_left_as_it_is() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lose_mount(&lab, "t1");
    let path = lab.mount_point("t1");
    // So a target holds it that is being mounted there by another spelling of the path.
    let script = "exec flock \"$0\" sh -c 'echo held; read x'";
    let other = Held::start(&mut lab.command("sh", &["-c", script, &path.display().to_string()]));
    let run = send(&lab, &lab.request("unmount", 1, "t1"));
    assert_eq!(run.line()["unmounted"], true, "{run}");
    assert!(run.stderr.contains("another target is just being mounted there"), "{run}");
    let why = fs::write(path.join("backup"), "lost").expect_err("it was made writable");
    assert_eq!(why.raw_os_error(), Some(nix::errno::Errno::EPERM as i32), "{why}");
    other.release();
}

#[test]
fn a_target_with_an_odd_name_is_mounted_listed_and_unmounted() {
    let lab = Lab::new();
    let odd = "a b\\c%d,e=f:\u{fc}\u{202e}'\"$(x)";
    let request = |action: &str, job| lab.request(action, job, odd);
    assert_eq!(lab.send(&request("mount", 1))["physically_mounted"], true);
    fs::write(lab.mount_point(odd).join("x"), "odd").expect("it is mounted");
    assert!(lab.object("x").exists());
    assert_eq!(lab.send(&request("mount", 2))["reused_existing"], true);
    let list = lab.feed("dms-mount", &["list"], "").expect(0).lines();
    assert_eq!((&list[0]["target"], list.len()), (&json!(odd), 2), "{list:?}");
    assert_eq!(list[0]["path"], lab.mount_point(odd).display().to_string());
    lab.shell("dms-mount list | dms-ledger audit").expect(0);
    // Known by the kernel's words alone, too.
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    assert_eq!(lab.send(&request("mount", 3))["reused_existing"], true);
    for job in [1, 2, 3] {
        assert_eq!(lab.send(&request("unmount", job))["status"], "success");
    }
    assert!(!lab.path("run/mounts").join(odd).exists());
    assert!(fs::read_dir(lab.path("mnt")).expect("it is there").count() <= 1);
}

#[test]
fn a_daemon_that_runs_without_its_mount_is_no_mount() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let job = lab.job_in("t1");
    umount2(&lab.mount_point("t1"), MntFlags::MNT_DETACH).expect("root may");
    assert!(lab.mounted("t1").is_none() && !lab.daemons("t1").is_empty());
    // It may still have data to send: nothing is mounted beside it, and nobody is told yes.
    let mut pipeline = lab.pipeline_command();
    pipeline.env("DMS_REQUEST_TIMEOUT", "1");
    let refused = run(&mut pipeline, format!("{}\n", lab.request("mount", 2, "t1")).as_bytes());
    assert_eq!(refused.line()["error_code"], "busy", "{refused}");
    assert!(refused.stdout.contains("still flushing, pid "), "{refused}");
    job.release();
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    assert_eq!(lab.mount(2, "t1")["physically_mounted"], true);
}

/// Runs dms-mount where nobody can list the processes of the host. What it mounts is followed, too, and
/// would keep us waiting.
fn blindly(lab: &Lab, args: &str, input: &str) -> Run {
    let log = lab.path("strace").display().to_string();
    let inject = "-e trace=openat -e inject=openat:error=EIO";
    let script = format!(
        "exec timeout -s KILL 20 strace -f -qq -o {log} -P /proc {inject} dms-mount {args}"
    );
    run(&mut lab.command("sh", &["-c", &script]), input.as_bytes())
}

#[test]
fn after_an_unmount_no_daemon_is_looked_for_and_after_the_next_mount_one_is_again() {
    let lab = Lab::new();
    let mount = lab.request("mount", 1, "t1").to_string();
    let words = "unable to look at the processes of this host";
    let first = blindly(&lab, "", &mount);
    assert!(first.stdout.contains(words), "{first}");
    let mut seen = Filter::start(&mut lab.pipeline_command());
    assert_eq!(seen.ask(&lab.request("mount", 1, "t1"))["physically_mounted"], true);
    assert_eq!(seen.ask(&lab.request("unmount", 1, "t1"))["unmounted"], true);
    seen.end();
    // It was seen to end. (What is mounted would be followed by strace for as long as it is.)
    let mut no_secret = lab.request("mount", 1, "t1");
    no_secret["backup_target"]["secret_ref"] = "file:///nonexistent".into();
    let unready = blindly(&lab, "", &no_secret.to_string());
    assert_eq!(unready.line()["error_code"], "credentials", "{unready}");
    assert!(blindly(&lab, "", &mount).stdout.contains(words));
    lab.mount(1, "t1");
    let job = lab.job_in("t1");
    umount2(&lab.mount_point("t1"), MntFlags::MNT_DETACH).expect("root may");
    for file in ["mounts/t1", "s3/t1.pid"] {
        fs::remove_file(lab.path("run").join(file)).expect("it was written");
    }
    // Nothing says that it runs, and nothing says any more that none does.
    assert!(blindly(&lab, "", &mount).stdout.contains(words));
    let mut command = lab.command("dms-mount", &[]);
    let refused = run(command.env("DMS_REQUEST_TIMEOUT", "1"), mount.as_bytes());
    assert!(refused.stdout.contains("still flushing, pid "), "{refused}");
    job.release();
    eventually("the daemon ends", || lab.daemons("t1").is_empty());
    assert_eq!(run(&mut command, mount.as_bytes()).expect(0).line()["physically_mounted"], true);
    // An unmount that leaves it to whoever has files open has not seen it end.
    let job = lab.job_in("t1");
    let unmount = lab.request("unmount", 1, "t1").to_string();
    lab.feed("dms-mount", &["--on-busy", "lazy"], &unmount).expect(0);
    assert_eq!(fs::read_to_string(lab.path("run/act/t1.lock")).expect("it is there"), "");
    job.release();
}

#[test]
fn where_nobody_can_look_it_is_not_said_that_there_is_no_daemon() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    lab.mount(2, "t2");
    // Nothing but its environment says whose the daemon is.
    fs::remove_dir_all(lab.path("run")).expect("it is a plain directory");
    let words = "unable to look at the processes of this host";
    let unmount = lab.request("unmount", 1, "t1").to_string();
    let run = blindly(&lab, "", &unmount);
    assert_eq!(run.line()["error_code"], "internal", "{run}");
    assert!(run.stdout.contains(words), "{run}");
    assert!(lab.mounted("t1").is_some(), "unmounted, and nobody waits for its data");

    // A dead mount is not detached under whoever may use it.
    lab.daemons("t2")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("t2").is_empty());
    let clean = blindly(&lab, "clean", "");
    assert!(clean.expect(1).stderr.contains(&format!("t2: {words}")), "{clean}");
    assert!(lab.mounted("t2").is_some() && lab.mounted("t1").is_some(), "{clean}");

    // Nor is a daemon started beside one that may be there.
    umount2(&lab.mount_point("t1"), MntFlags::MNT_DETACH).expect("root may");
    let run = blindly(&lab, "", &lab.request("mount", 1, "t1").to_string());
    assert_eq!(run.line()["error_code"], "internal", "{run}");
    assert_eq!(lab.mounted("t1"), None);
    lab.unmount(2, "t2");
    lab.unmount(1, "t1");
}

#[test]
fn a_copy_of_the_mount_in_another_mount_namespace_is_named_and_nothing_is_forgotten() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // As a container that was started meanwhile.
    let private = ["-m", "--propagation", "private"];
    let container =
        Held::start(&mut lab.command("unshare", &[&private[..], &Held::SHELL].concat()));
    let request = lab.request("unmount", 1, "t1");
    let mut pipeline = lab.command("dms-pipeline", &[]);
    pipeline.env("DMS_REQUEST_TIMEOUT", "3");
    let answer = run(&mut pipeline, format!("{request}\n").as_bytes()).line();
    assert_eq!(answer["error_code"], "busy", "{answer}");
    let text = answer["error_msg"].as_str().expect("it says why");
    let holder = format!("but pid {} (sh) has it in a mount namespace of its own", container.pid());
    assert!(text.contains(&holder), "{text}");
    assert_eq!((lab.mounted("t1"), lab.users("t1")), (None, vec![1]));
    container.release();
    assert_eq!(lab.unmount(1, "t1")["status"], "success");
    lab.assert_gone("t1");
}
