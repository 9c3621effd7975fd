//! How dms-listen ends, and what the service manager hears of it.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use dms_tests::{Listener, RemoteLab, eventually};
use nix::sys::signal::Signal;

#[test]
fn sigterm_finishes_what_runs_and_hands_back_the_rest() {
    let remote = RemoteLab::shared();
    let mut listener = remote.obeying(&[]);
    for id in ["runs", "waits-1", "waits-2"] {
        remote.send(id, "t1", "sleep 1");
    }
    eventually("the first one has begun", || remote.notes() == ["begin runs"]);
    listener.signal(Signal::SIGTERM);
    listener.wait_for("stopping", 1);
    let mut check = remote.lab.command("dms-call", &["--check"]);
    check.env("DMS_RABBITMQ_URL", remote.broker.url()).stderr(std::process::Stdio::null());
    eventually("nobody listens any more", || check.status().is_ok_and(|s| s.code() == Some(1)));
    assert_eq!(remote.notes(), ["begin runs"], "it listened until it ended");
    assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
    assert_eq!(remote.answers(1)[0].0, "runs");
    let queue = remote.broker.queue(&remote.lab.queue()).expect("it is durable");
    assert_eq!((queue.messages, queue.unacknowledged, queue.consumers), (2, 0, 0));
    assert_eq!(remote.notes(), ["begin runs", "end runs"], "one that waited was begun");
    let _listener = remote.obeying(&[]);
    let ids: Vec<String> = remote.answers(2).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["waits-1", "waits-2"]);
}

#[test]
fn what_comes_while_it_stops_is_handed_back_at_once() {
    let remote = RemoteLab::shared();
    let mut listener = remote.obeying(&["--grace", "30"]);
    remote.send("runs", "busy", "sleep 6");
    eventually("it has begun", || remote.notes() == ["begin runs"]);
    for number in 0..400 {
        remote.send(&number.to_string(), &format!("t{number}"), "nothing");
        if number == 20 {
            listener.signal(Signal::SIGTERM);
        }
    }
    listener.wait_for("stopping", 1);
    let second = remote.obeying(&[]);
    let start = Instant::now();
    let others: Vec<String> = remote.answers(400).into_iter().map(|(id, _)| id).collect();
    assert!(!others.contains(&"runs".to_owned()), "they had to wait for the first one's end");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(remote.answers(1)[0].0, "runs");
    assert_eq!(listener.wait().code(), Some(0));
    drop(second);
    remote.assert_empty();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        let remote = RemoteLab::shared();
        let mut listener = remote.obeying(&[]);
        remote.send("slow", "t1", "sleep 20");
        eventually("it has begun", || remote.notes() == ["begin slow"]);
        let start = Instant::now();
        listener.signal(signal);
        listener.wait_for("stopping", 1);
        listener.signal(signal);
        assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn sigterm_ends_it_within_the_grace_and_nothing_is_lost() {
    let remote = RemoteLab::shared();
    let mut listener = remote.obeying(&["--grace", "0.5"]);
    remote.send("slow", "t1", "sleep 20");
    eventually("it has begun", || remote.notes() == ["begin slow"]);
    let start = Instant::now();
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let queue = remote.broker.queue(&remote.lab.queue()).expect("it is durable");
    assert_eq!(queue.messages, 1, "the request is lost");
}

/// What a service manager hears of its listener.
struct Manager {
    socket: UnixDatagram,
    listener: Listener,
}

impl Manager {
    fn new(remote: &RemoteLab, environment: &[(&str, &str)]) -> Manager {
        let path = remote.lab.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a fresh path");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut command = remote.lab.command("dms-listen", &["--", "cat"]);
        command.env("DMS_RABBITMQ_URL", remote.broker.url()).env("NOTIFY_SOCKET", &path);
        command.envs(environment.iter().copied());
        Manager { socket, listener: Listener::spawn(&remote.lab, &mut command) }
    }

    /// Waits until it is told something with these words.
    fn hear(&self, words: &str) {
        let mut buffer = [0; 1000];
        loop {
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|why| panic!("{words}: {why}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(words) {
                return;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    let remote = RemoteLab::shared();
    let mut manager = Manager::new(&remote, &[("WATCHDOG_USEC", "400000")]);
    manager.hear("READY=1");
    manager.hear(&format!("STATUS=serving {}", remote.lab.queue()));
    manager.hear("WATCHDOG=1");
    manager.hear("WATCHDOG=1");
    manager.listener.signal(Signal::SIGTERM);
    manager.hear("STOPPING=1");
    assert!(manager.listener.wait().success());
}

#[test]
fn the_service_manager_is_told_what_happens_to_a_listener_that_was_asleep() {
    let remote = RemoteLab::shared();
    let manager = Manager::new(&remote, &[]);
    manager.hear("READY=1");
    for number in 1..=2 {
        // By then it has seen that nothing happens.
        std::thread::sleep(Duration::from_millis(1200));
        remote.send(&number.to_string(), "t1", "nothing");
        remote.answer();
        manager.hear(&format!("0 running, 0 waiting, {number} answered"));
    }
}
