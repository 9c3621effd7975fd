//! dms-with: a mount that lasts as long as a command does.

mod idle;
mod retry;
mod signals;
mod storm;
mod terminal;
mod workflows;

use std::fs;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use dms_tests::{Lab, Run, eventually, run};
use serde_json::{Value, json};

/// Requests in a file; returns its path.
fn file(lab: &Lab, requests: &[Value]) -> String {
    let path = lab.fresh_path("request");
    let lines: Vec<String> = requests.iter().map(|request| format!("{request}\n")).collect();
    fs::write(&path, lines.concat()).expect("room for it");
    path.display().to_string()
}

/// dms-with, with a request of this job for this target, and the command.
fn command(lab: &Lab, job: i32, target: &str, args: &[&str]) -> Command {
    let file = file(lab, &[lab.request("mount", job, target)]);
    // Whoever runs the tests may ignore signals, as nohup(1) does, and dms-with would, too.
    let before = ["--default-signal=HUP,INT,QUIT,TERM", "dms-with", &*file, "--"];
    lab.command("env", &[&before, args].concat())
}

/// Runs a script while job 1 has t1.
#[track_caller]
fn with(lab: &Lab, script: &str) -> Run {
    run(&mut command(lab, 1, "t1", &["sh", "-c", script]), b"")
}

/// A dms-with that runs, and whose command waits for a line.
struct Job {
    child: Child,
    stdin: Option<ChildStdin>,
    up: std::path::PathBuf,
}

impl Job {
    /// Starts it and waits until the command runs; `script` is what that does first.
    #[track_caller]
    fn start(lab: &Lab, job: i32, target: &str, script: &str) -> Job {
        let started = Job::begin(lab, job, target, script);
        eventually("the command runs", || started.up.exists());
        started
    }

    /// Starts it, and does not wait.
    fn begin(lab: &Lab, job: i32, target: &str, script: &str) -> Job {
        let up = lab.fresh_path("up");
        let script = format!("{script}\necho $$ >{0}.new; mv {0}.new {0}; read x", up.display());
        let mut command = command(lab, job, target, &["sh", "-c", &script]);
        Job::spawn(&mut command, up)
    }

    fn spawn(command: &mut Command, up: std::path::PathBuf) -> Job {
        let log = fs::File::create(up.with_extension("log")).expect("room for it");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("it was built");
        let stdin = child.stdin.take();
        Job { child, stdin, up }
    }

    /// The process of the command, which has to run.
    fn pid(&self) -> i32 {
        let text = fs::read_to_string(&self.up).expect("it runs");
        text.trim().parse().expect("a number")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.up.with_extension("log")).unwrap_or_default()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("it is ours");
    }

    /// Its end, which comes while the command has its input.
    fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it is ours")
    }

    /// Its end, when the command is told to end.
    fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().expect("it is ours")
    }
}

#[test]
fn the_command_has_the_mount_and_afterwards_it_is_gone() {
    let lab = Lab::new();
    let script = r#"test "$DMS_MOUNT_PATH" = "$DMS_MOUNT_PATHS" && mountpoint -q "$DMS_MOUNT_PATH" &&
        echo data >"$DMS_MOUNT_PATH/backup" && echo "out $(cat)" && echo err >&2; exit 7"#;
    let request = lab.request("mount", 1, "t1");
    for args in [vec![file(&lab, std::slice::from_ref(&request))], vec!["-".to_owned()]] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = [&args[..], &["--", "sh", "-c", script]].concat();
        // Its input is the command's, unless it is the request.
        let (input, said) = if args[0] == "-" {
            (format!("{request:#}\n"), "out \n")
        } else {
            ("in\n".to_owned(), "out in\n")
        };
        let ran = lab.feed("dms-with", &args, &input);
        assert_eq!(ran.expect(7).stdout, said, "{ran}");
        assert!(ran.stderr.contains("err\n"), "{ran}");
        assert_eq!(fs::read_to_string(lab.object("backup")).expect("it was written"), "data\n");
        lab.assert_gone("t1");
        assert_eq!(lab.users("t1"), [0; 0]);
    }
}

#[test]
fn flags_say_what_a_file_would() {
    let lab = Lab::new();
    let secret = lab.secret("good", |_| ());
    let of = ["--job-id", "1", "--target-id", "t1", "--target-type", "s3", "--secret-ref", &secret];
    let path = lab.mount_point("elsewhere").display().to_string();
    let more = ["--mount-path", &path, "--", "sh", "-c", "echo \"$DMS_MOUNT_PATH\""];
    let ran = lab.feed("dms-with", &[&of[..], &more].concat(), "");
    assert_eq!(ran.expect(0).stdout, format!("{path}\n"));
    assert_eq!(lab.mounted("elsewhere"), None);
}

#[test]
fn several_are_mounted_in_order_and_unmounted_in_reverse() {
    let lab = Lab::new();
    let requests: Vec<Value> = ["t1", "t2", "t3"].map(|t| lab.request("mount", 1, t)).into();
    let (two, one) = (file(&lab, &requests[..2]), file(&lab, &requests[2..]));
    let script = r#"echo "$DMS_MOUNT_PATHS"; cd "$DMS_MOUNT_PATH" && pwd"#;
    let ran = lab.feed("dms-with", &[&*two, &one, "--", "sh", "-c", script], "");
    let path = |target| lab.mount_point(target).display().to_string();
    let (t1, t2, t3) = (path("t1"), path("t2"), path("t3"));
    assert_eq!(ran.expect(0).stdout, format!("{t1}\n{t2}\n{t3}\n{t1}\n"));
    let history = lab.feed("dms-ledger", &["history", "--json", "--job-id", "1"], "");
    let done: Vec<String> = history
        .expect(0)
        .lines()
        .iter()
        .rev()
        .map(|row| {
            format!(
                "{} {}",
                row["action"].as_str().unwrap_or(""),
                row["target"].as_str().unwrap_or("")
            )
        })
        .collect();
    let want = ["mount t1", "mount t2", "mount t3", "unmount t3", "unmount t2", "unmount t1"];
    assert_eq!(done, want);
    for target in ["t1", "t2", "t3"] {
        lab.assert_gone(target);
    }
}

#[test]
fn where_a_mount_fails_nothing_is_run_and_nothing_stays_mounted() {
    let lab = Lab::new();
    let mut bad = lab.request("mount", 1, "t2");
    bad["backup_target"]["secret_ref"] = json!("file:///no/such/secret");
    let file = file(&lab, &[lab.request("mount", 1, "t1"), bad]);
    let ran = lab.feed("dms-with", &[&file, "--", "echo", "run"], "");
    assert_eq!(ran.expect(1).stdout, "");
    let fatal = format!("dms-with: fatal: unable to mount target t2 for job 1 on {}: ", lab.node);
    assert!(ran.stderr.contains(&fatal), "{ran}");
    lab.assert_gone("t1");
    assert_eq!(lab.users("t1"), [0; 0]);

    let script = r#"printf "%s|" "$DMS_MOUNT_PATH" "$DMS_MOUNT_PATHS""#;
    let ran = lab.feed("dms-with", &["--keep-going", &file, "--", "sh", "-c", script], "");
    let path = lab.mount_point("t1").display().to_string();
    assert_eq!(ran.expect(0).stdout, format!("{path}|{path}\n|"));
    assert!(ran.stderr.contains("error: unable to mount target t2"), "{ran}");
    lab.assert_gone("t1");
    // With nothing mounted at all there is nothing to run it with.
    let mut bad = lab.request("mount", 1, "t2");
    bad["backup_target"]["secret_ref"] = json!("file:///no/such/secret");
    let only = self::file(&lab, &[bad]);
    let ran = lab.feed("dms-with", &["--keep-going", &only, "--", "echo", "run"], "");
    assert_eq!(ran.expect(1).stdout, "");
}

#[test]
fn a_request_that_is_no_good_is_told_before_anything_is_mounted() {
    let lab = Lab::new();
    let good = lab.request("mount", 1, "t1");
    let mut without_host = good.clone();
    without_host["host"] = Value::Null;
    let mut planned = good.clone();
    planned["plan"] = json!({"seq": 1});
    for (text, why) in [
        (String::new(), "there is no request in stdin"),
        (format!("{good}\nkeystone_token=abc"), "request 2 in stdin is no good: it is not JSON"),
        (format!("{good}{good}"), "is there already"),
        (without_host.to_string(), "Missing required field: host"),
        (planned.to_string(), "it has a plan already"),
    ] {
        let ran = lab.feed("dms-with", &["-", "--", "echo", "run"], &text);
        assert!(ran.expect(100).stdout.is_empty() && ran.stderr.contains(why), "{why}\n{ran}");
        assert!(!ran.stderr.contains("abc"), "{ran}");
    }
    for args in [
        &["--", "true"][..],
        &["/no/such/file", "--", "true"],
        &["-"],
        &["-", "--job-id", "1", "--", "true"],
    ] {
        lab.feed("dms-with", args, "").expect(100);
    }
    assert!(lab.history("t1").is_empty());
}

#[test]
fn no_token_is_where_the_command_or_a_process_list_could_have_it() {
    let lab = Lab::new();
    let mut request = lab.request("mount", 1, "t1");
    request["keystone_token"] = Value::Null;
    let file = file(&lab, &[request]);
    fs::write(lab.path("token"), "by-environment\n").expect("room for it");
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | grep -qaF -f token && touch leaked";
    let script = format!(
        "{look}; test -z \"${{KEYSTONE_TOKEN+x}}\" && ! grep -qaF -f token /proc/self/environ"
    );
    // The pipeline gets it with the mount, and not with the unmount.
    let pipeline = format!("{look}; tee -a lines | dms-pipeline");
    let mut command = lab.command("dms-with", &[&file, "--", "sh", "-c", &script]);
    command.env("KEYSTONE_TOKEN", "by-environment").env("DMS_PIPELINE", pipeline);
    let ran = run(command.current_dir(lab.path("")), b"");
    ran.expect(0);
    assert!(!ran.stderr.contains("by-environ") && !lab.path("leaked").exists(), "{ran}");
    let lines = fs::read_to_string(lab.path("lines")).expect("it was written");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("by-environment") && !lines[1].contains("by-environ"));
    assert!(!lines[1].contains("keystone_token"));
}

#[test]
fn what_cannot_be_unmounted_is_told_and_counts_only_if_that_is_asked_for() {
    let lab = Lab::new();
    for (args, code) in [(&[][..], 0), (&["--strict"], 111)] {
        let file = file(&lab, &[lab.request("mount", 1, "t1")]);
        let user = lab.fresh_path("user");
        // It leaves somebody behind, who keeps it busy.
        let script = format!(
            "cd \"$DMS_MOUNT_PATH\" && {{ sleep 1000 >/dev/null 2>&1 & echo $! >{}; }}",
            user.display()
        );
        let args = [args, &[&*file, "--", "sh", "-c", &script]].concat();
        // Not for long: five attempts otherwise.
        let mut command = lab.command("dms-with", &args);
        let ran = run(command.env("DMS_REQUEST_TIMEOUT", "2"), b"");
        assert!(ran.expect(code).stderr.contains("error: unable to unmount target t1"), "{ran}");
        assert_eq!(lab.users("t1"), [1], "nobody would try again");
        let pid: i32 = fs::read_to_string(user).expect("it ran").trim().parse().expect("a number");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .expect("it is there");
        eventually("the mount is free", || {
            lab.send(&lab.request("unmount", 1, "t1"))["unmounted"] == true
        });
    }
    // What COMMAND says of itself is not hidden by it.
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let fails = r#"read -r line; case $line in *'"action":"mount"'*) ;; *) exit 100 ;; esac
        echo '{"status":"success","mount_path":"/"}'"#;
    let mut command = lab.command("dms-with", &["--strict", &file, "--", "sh", "-c", "exit 3"]);
    run(command.env("DMS_PIPELINE", fails), b"").expect(3);
    let mut command = lab.command("dms-with", &["--strict", &file, "--", "true"]);
    run(command.env("DMS_PIPELINE", fails), b"").expect(1);
}
