//! What dms-call does when its broker is not as it should be.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use dms_tests::calling::{ANSWER, answering, call, caller, request};
use dms_tests::{Broker, Lab, Listener, eventually, run};

#[test]
fn all_lines_go_over_one_connection() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let _listener = answering(&lab, &broker);
    let mut caller = caller(&lab, &broker.url(), &[]);
    caller.ask(&request(&lab.node, "x"));
    let before = broker.connections();
    for _ in 0..50 {
        caller.ask(&request(&lab.node, "x"));
    }
    assert_eq!(before.len(), 2);
    assert_eq!(broker.connections(), before);
}

#[test]
fn a_connection_that_broke_between_two_lines_is_made_anew() {
    let (lab, mut broker) = (Lab::unique(), Broker::start());
    let listener = answering(&lab, &broker);
    let mut caller = caller(&lab, &broker.url(), &["--timeout", "20"]);
    assert_eq!(caller.ask(&request(&lab.node, "1"))["success_msg"], "1");
    broker.restart();
    listener.wait_for("serving", 2);
    assert_eq!(caller.ask(&request(&lab.node, "2"))["success_msg"], "2");
    broker.kill();
    assert_eq!(caller.ask(&request(&lab.node, "3"))["error_code"], "broker");
    broker.start_again();
    listener.wait_for("serving", 3);
    assert_eq!(caller.ask(&request(&lab.node, "4"))["success_msg"], "4");
}

#[test]
fn a_connection_that_idles_for_longer_than_its_heartbeat_still_works() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let url = format!("{}?heartbeat=1", broker.url());
    let mut command = [&["--"], &ANSWER[..]].concat();
    command.insert(0, "--jobs=1");
    let listener = Listener::begin(&lab, &url, &command);
    listener.wait_for("serving", 1);
    let mut caller = caller(&lab, &url, &[]);
    assert_eq!(caller.ask(&request(&lab.node, "1"))["success_msg"], "1");
    let before = broker.connections();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(caller.ask(&request(&lab.node, "2"))["success_msg"], "2");
    assert_eq!(before.len(), 2);
    assert_eq!(broker.connections(), before, "one of them broke");
}

#[test]
fn a_broker_that_dies_with_a_request_is_an_unknown_outcome_at_once() {
    let (lab, mut broker) = (Lab::unique(), Broker::start());
    let _listener = Listener::start(&lab, &broker, &["--", "sleep", "1000"]);
    let mut caller = caller(&lab, &broker.url(), &["--timeout", "60"]);
    caller.tell(&request(&lab.node, "x"));
    eventually("it is being done", || {
        broker.queue(&lab.queue()).is_some_and(|queue| queue.unacknowledged == 1)
    });
    let start = Instant::now();
    broker.kill();
    let answer = caller.answer();
    assert_eq!(answer["error_code"], "broker", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_broker_that_hangs_is_a_timeout_in_time_and_the_caller_ends() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let _listener = answering(&lab, &broker);
    let mut caller = caller(&lab, &broker.url(), &["--timeout", "2"]);
    assert_eq!(caller.ask(&request(&lab.node, "1"))["success_msg"], "1");
    broker.suspend();
    let start = Instant::now();
    let answer = caller.ask(&request(&lab.node, "2"));
    // The look at the queue was cut short: nothing was sent.
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    caller.end();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    broker.resume();
}

#[test]
fn a_broker_without_memory_is_not_given_a_request_that_it_would_keep() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let listener = answering(&lab, &broker);
    let mut old = caller(&lab, &broker.url(), &["--timeout", "20"]);
    assert_eq!(old.ask(&request(&lab.node, "1"))["success_msg"], "1");
    broker.alarm();
    for answer in [
        old.ask(&request(&lab.node, "2")),
        call(&lab, &broker.url(), &[], &[request(&lab.node, "3")]).expect(1).line(),
    ] {
        assert_eq!(answer["error_code"], "broker", "{answer}");
        assert!(answer["error_msg"].to_string().contains("memory"), "{answer}");
    }
    broker.no_alarm();
    eventually("the broker takes messages again", || {
        old.ask(&request(&lab.node, "4"))["success_msg"] == "4"
    });
    assert!(!listener.log().contains("lost"), "{}", listener.log());
}

#[test]
fn a_broker_that_is_not_there_is_an_error_within_bounds() {
    let lab = Lab::new();
    // One that refuses, and one that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let quick = format!("amqp://127.0.0.1:{port}?connection_timeout=500");
    for (url, most) in [("amqp://127.0.0.1:1", 3), (quick.as_str(), 5)] {
        let start = Instant::now();
        let answer = call(&lab, url, &[], &[request("n1", "x")]).expect(1).line();
        assert_eq!(answer["error_code"], "broker", "{answer}");
        assert!(start.elapsed() < Duration::from_secs(most), "{url}: {:?}", start.elapsed());
    }
    let start = Instant::now();
    let slow = format!("amqp://127.0.0.1:{port}");
    call(&lab, &slow, &["--timeout", "1"], &[request("n1", "x")]).expect(1);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn the_reason_is_told_however_often_it_was_tried() {
    let lab = Lab::new();
    let url = "amqp://127.0.0.1:1?connection_attempts=100&retry_delay=0.1";
    let check = call(&lab, url, &["--check", "--timeout", "1"], &[]);
    assert!(check.expect(111).stderr.contains("Connection refused"), "{check}");
}

#[test]
fn a_check_tells_a_broker_that_is_down_from_a_node_that_does_not_listen() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let check = |url: &str, args: &[&str]| call(&lab, url, &[&["--check"], args].concat(), &[]);
    let no = check(&broker.url(), &[]);
    assert!(no.expect(1).stderr.contains(&lab.queue()), "{no}");
    let _listener = answering(&lab, &broker);
    check(&broker.url(), &[]).expect(0);
    check(&broker.url(), &["--host", &lab.node]).expect(0);
    check(&broker.url(), &["--host", "nobody"]).expect(1);
    check("amqp://127.0.0.1:1", &[]).expect(111);
    check("amqp://127.0.0.1:1", &["--host", ""]).expect(100);
    let wrong = broker.url().replace("dms:", "dms:x");
    let refused = check(&wrong, &[]);
    assert!(refused.expect(111).stderr.contains("refused the user or the password"), "{refused}");
    let nowhere = check(&format!("{}/no-such-vhost", broker.url()), &[]);
    assert!(nowhere.expect(111).stderr.contains("no-such-vhost"), "{nowhere}");
}

#[test]
fn the_next_broker_of_the_list_is_tried() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let url = format!("amqp://u:p@127.0.0.1:1,{}", broker.url());
    let listener = Listener::begin(&lab, &url, &[&["--"], &ANSWER[..]].concat());
    listener.wait_for("serving", 1);
    let answer = call(&lab, &url, &[], &[request(&lab.node, "x")]).expect(0).line();
    assert_eq!(answer["success_msg"], "x");
}

#[test]
fn a_broker_that_hangs_leaves_time_for_the_next_one() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let _listener = answering(&lab, &broker);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let url = format!("amqp://u:p@127.0.0.1:{port},{}", broker.url());
    let start = Instant::now();
    let answer = call(&lab, &url, &["--timeout", "6"], &[request(&lab.node, "x")]).expect(0).line();
    assert_eq!(answer["success_msg"], "x");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn a_broker_that_hangs_after_it_was_told_the_password_has_not_refused_it() {
    let lab = Lab::new();
    // What RabbitMQ says first: Connection.Start, with no properties.
    let mut start = b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US".to_vec();
    let length = u32::try_from(start.len()).expect("it is short").to_be_bytes();
    start = [&b"\x01\0\0"[..], &length, &start, b"\xce"].concat();
    for (hangs_up, words) in [(false, "does not answer"), (true, "refused the user")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let start = start.clone();
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            stream.write_all(&start).expect("it reads");
            let mut said = [0; 1000];
            // The protocol's name, and the password in a frame of its own.
            let mut length = 0;
            while !hangs_up || length < 20 {
                match stream.read(&mut said) {
                    Ok(0) | Err(_) => return,
                    Ok(more) => length += more,
                }
            }
        });
        let url = format!("amqp://u:p@127.0.0.1:{port}?connection_timeout=700");
        let check = call(&lab, &url, &["--check"], &[]);
        assert!(check.expect(111).stderr.contains(words), "{check}");
        broker.join().expect("it has seen the end");
    }
}

#[test]
fn a_name_server_that_hangs_does_not_take_longer_than_there_is_time() {
    let lab = Lab::new();
    // It hears the questions, and answers none of them. On an address that no other test has.
    let id = std::process::id();
    let address = format!("127.53.{}.{}", id / 256 % 256, id % 256);
    let _silent = UdpSocket::bind((address.as_str(), 53)).expect("a free port");
    fs::write(lab.path("resolv.conf"), format!("nameserver {address}\n")).expect("room for it");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec dms-call --check --timeout 1";
    let file = lab.path("resolv.conf").display().to_string();
    let mut command = lab.command("unshare", &["--mount", "sh", "-c", script, &file]);
    let start = Instant::now();
    let check = run(command.env("DMS_RABBITMQ_URL", "amqp://broker.example"), b"");
    assert!(check.expect(111).stderr.contains("broker.example"), "{check}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
