//! Nobody is kept from a lock for ever: not who has to be alone by those who share it, and not a
//! stranger who only tries now and then.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Held, Lab, eventually, is_long_run, run, waits_for_lock};
use serde_json::json;

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Does this over and over in so many threads while `meanwhile` runs.
fn under_load<T>(threads: usize, load: impl Fn(usize) + Sync, meanwhile: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..threads {
            let (is_over, load) = (&is_over, &load);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    load(number);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        is_over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|why| std::panic::resume_unwind(why))
    })
}

/// Holds the lock for a moment, at times only if it is free.
fn hold(lab: &Lab, program: &str, args: &[&str], seconds: &str) {
    let mut command = lab.command(program, args);
    let end = command.args(["sleep", seconds]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    assert!(end.is_ok_and(|end| matches!(end.code(), Some(0 | 1))));
}

#[test]
fn who_has_to_be_alone_is_served_under_a_stream_that_shares() {
    let lab = Lab::new();
    // Eight who hold it for 50 ms each: at any moment somebody does. Every other one does not wait.
    let share = |number: usize| {
        let wait = ["-w60", "-n"][number % 2];
        hold(&lab, "dms-lock", &["-s", wait, "node", "--"], "0.05");
    };
    let alone = || {
        let begun = Instant::now();
        lab.feed("dms-lock", &["-w", "60", "node", "--", "true"], "").expect(0);
        begun.elapsed()
    };
    let mut waits: Vec<Duration> = under_load(8, share, || (0..20).map(|_| alone()).collect());
    waits.sort_unstable();
    tell(&format!("alone among 8 who share: median {:?}, longest {:?}", waits[10], waits[19]));
    assert!(waits[19] < Duration::from_secs(5), "{waits:?}");
}

#[test]
fn whoever_comes_behind_one_who_has_to_be_alone_waits_and_is_served_after_it() {
    let lab = Lab::new();
    let share = || {
        let mut command = lab.command("dms-lock", &["-s", "-w", "60", "node", "--"]);
        command.args(Held::SHELL);
        command
    };
    let first = Held::start(&mut share());
    let mut alone = lab.command("dms-lock", &["-w", "60", "node", "--", "true"]).spawn();
    let alone = alone.as_mut().expect("it was built");
    eventually("it waits to be alone", || waits_for_lock(alone.id()));
    lab.feed("dms-lock", &["-s", "-n", "node", "--", "true"], "").expect(1);
    let mut request = Filter::start(&mut lab.command("dms-lock", &["--each", "--", "cat"]));
    request.tell(&json!({"backup_target": {"id": "t1"}}));
    eventually("the request waits behind it", || waits_for_lock(request.pid().cast_unsigned()));
    first.release();
    assert!(alone.wait().is_ok_and(|end| end.success()));
    assert_eq!(request.answer()["backup_target"]["id"], "t1");
    request.end();
}

#[test]
fn who_shares_without_waiting_is_not_refused_for_one_who_is_just_passing() {
    let lab = Lab::new();
    let _first = lab.hold(&["other"]);
    let share = |_| hold(&lab, "dms-lock", &["-s", "-w", "60", "x", "--"], "0.001");
    let refused = under_load(4, share, || {
        let tries = (0..100).map(|_| lab.feed("dms-lock", &["-s", "-n", "x", "--", "true"], ""));
        tries.filter(|run| run.code != 0).count()
    });
    assert_eq!(refused, 0);
}

/// A client as the Python one is: it tries every 100 ms, exclusive, and holds the lock for 10 ms. It
/// says after how many milliseconds it had it, and `broken` if it was not alone.
const PYTHON: &str = r#"
import fcntl, os, sys, time
path, witness, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
end = time.monotonic() + seconds
while time.monotonic() < end:
    begun = time.monotonic()
    with open(path, "w") as lock:
        while True:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        print(round((time.monotonic() - begun) * 1000), flush=True)
        with open(witness, "w") as file:
            file.write("python")
        time.sleep(0.01)
        with open(witness) as file:
            if file.read() != "python":
                print("broken", flush=True)
        os.truncate(witness, 0)
        fcntl.flock(lock.fileno(), fcntl.LOCK_UN)
"#;

fn python(lab: &Lab, seconds: u64) -> Child {
    let lock = lab.path("lock/dms_mount_unmount.lock");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]).arg(lock).arg(lab.path("witness")).arg(seconds.to_string());
    command.stdout(Stdio::piped()).spawn().expect("python3 is there")
}

/// How long it waited, each time, in milliseconds.
#[track_caller]
fn waits(client: Child) -> Vec<u64> {
    let output = client.wait_with_output().expect("it is ours");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("broken"), "{text}");
    text.lines().map(|line| line.parse().unwrap_or_else(|why| panic!("{why}: {line}"))).collect()
}

/// Its waits beside eight of ours that take the lock like this.
fn beside(lab: &Lab, what: &str, program: &str, args: &[&str]) -> Vec<u64> {
    let seconds = if is_long_run() { 60 } else { 10 };
    lab.feed("dms-lock", &["--", "true"], "").expect(0);
    let ours = std::sync::atomic::AtomicUsize::new(0);
    // It looks that no Python client writes to the witness while it holds the lock.
    let script = "[ ! -s witness ] || echo broken >>broken; sleep 0.02; \
        [ ! -s witness ] || echo broken >>broken";
    let load = |_| {
        let mut command = lab.command(program, args);
        let end = command.args(["sh", "-c", script]).current_dir(lab.path("")).status();
        assert!(end.is_ok_and(|end| end.success()));
        ours.fetch_add(1, Ordering::Relaxed);
    };
    fs::write(lab.path("witness"), "").expect("room for it");
    let waits = under_load(8, load, || waits(python(lab, seconds)));
    assert!(!lab.path("broken").exists(), "both had the lock");
    let longest = waits.iter().max().copied().unwrap_or_default();
    let ours = ours.load(Ordering::Relaxed);
    tell(&format!(
        "a client that tries every 100 ms, {seconds} s beside {what}: {} times, longest wait \
         {longest} ms; they: {ours}",
        waits.len()
    ));
    waits
}

#[test]
fn a_client_that_tries_every_100_ms_is_not_starved() {
    let lab = Lab::new();
    for (what, args) in [
        ("8 of ours", &["-w60", "--"][..]),
        ("8 of ours that share", &["-w60", "-s", "dms_mount_unmount", "--"]),
    ] {
        let waits = beside(&lab, what, "dms-lock", args);
        assert!(waits.len() >= 5, "{what}: {waits:?}");
        assert!(waits.iter().all(|&wait| wait < 5_000), "{what}: {waits:?}");
    }
    if is_long_run() {
        let lock = lab.path("lock/dms_mount_unmount.lock").display().to_string();
        beside(&lab, "8 of flock(1)", "flock", &[&lock]);
    }
}

#[test]
fn a_client_that_tries_every_100_ms_is_not_starved_by_one_pipeline_that_is_never_idle() {
    let lab = Lab::new();
    lab.feed("dms-lock", &["--", "true"], "").expect(0);
    fs::write(lab.path("witness"), "").expect("room for it");
    let filter = "while read -r line; do sleep 0.05; echo \"$line\"; done";
    let args = ["--each", "-s", "dms_mount_unmount", "--", "sh", "-c", filter];
    let pipeline = std::sync::Mutex::new(Filter::start(&mut lab.command("dms-lock", &args)));
    let load = |_| {
        let mut pipeline = pipeline.lock().expect("one thread");
        pipeline.ask(&json!({"backup_target": {"id": "t1"}}));
    };
    let waits = under_load(1, load, || waits(python(&lab, 5)));
    tell(&format!("beside one pipeline: {} times, waits {waits:?} ms", waits.len()));
    assert!(waits.len() >= 3 && waits.iter().all(|&wait| wait < 3_000), "{waits:?}");
}

#[test]
fn a_hung_holder_that_shares_does_not_let_a_client_that_tries_stop_the_others() {
    let lab = Lab::new();
    let mut hung = lab.command("dms-lock", &["-s", "dms_mount_unmount", "--"]);
    let hung = Held::start(hung.args(Held::SHELL));
    fs::write(lab.path("witness"), "").expect("room for it");
    let mut client = python(&lab, 1);
    let lock = lab.path("lock/dms_mount_unmount.lock");
    let opened = |client: &Child| {
        let open = fs::read_dir(format!("/proc/{}/fd", client.id())).into_iter().flatten();
        open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == lock))
    };
    eventually("the client tries", || opened(&client));
    let begun = Instant::now();
    for _ in 0..20 {
        let args = ["-s", "-w", "60", "dms_mount_unmount", "--", "true"];
        lab.feed("dms-lock", &args, "").expect(0);
    }
    let took = begun.elapsed();
    // Two seconds once, for the sake of the client; and then nothing for ten.
    assert!(took < Duration::from_secs(6), "{took:?}");
    hung.release();
    assert!(client.wait().is_ok_and(|end| end.success()));
}

#[test]
fn who_comes_one_after_the_other_is_served_in_that_order() {
    let lab = Lab::new();
    let holder = lab.hold(&["x"]);
    let script = "echo $0 >>order";
    let waiters: Vec<Child> = (0..10)
        .map(|number| {
            let args = ["x", "--", "sh", "-c", script, &number.to_string()];
            let mut command = lab.command("dms-lock", &args);
            let waiter = command.current_dir(lab.path("")).spawn().expect("it was built");
            eventually("it waits", || waits_for_lock(waiter.id()));
            waiter
        })
        .collect();
    holder.release();
    for mut waiter in waiters {
        assert!(waiter.wait().is_ok_and(|end| end.success()));
    }
    let order = fs::read_to_string(lab.path("order")).expect("they were served");
    assert_eq!(order.split_whitespace().collect::<String>(), "0123456789");
    run(&mut lab.command("dms-lock", &["-n", "x", "--", "true"]), b"").expect(0);
}
