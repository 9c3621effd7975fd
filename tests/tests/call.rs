//! What dms-call makes of a request, and of whatever becomes of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dms_tests::{Broker, Filter, Lab, Listener, Peer, Run, eventually, run};
use serde_json::{Value, json};

/// A filter that answers with the request's own words, once it has them.
const ANSWER: [&str; 3] = [
    "sh",
    "-c",
    r#"while read -r line; do
        case $line in *'"do":"hang"'*) sleep 3 ;; esac
        word=$(printf %s "$line" | sed 's/.*"word":"\([^"]*\)".*/\1/')
        echo '{"status":"success","error_msg":null,"success_msg":"'"$word"'"}'
    done"#,
];

fn request(host: &str, word: &str) -> Value {
    json!({"host": host, "action": "mount", "word": word, "backup_target": {"id": "t1"}})
}

/// A plan for this host, as dms-ledger makes it.
fn plan(host: &str, action: &str, decision: &str) -> Value {
    json!({"operation": "op-1", "ledger": "ledger-1", "seq": 7, "job": 1, "target": "t1",
        "host": host, "path": "/m/t1", "action": action, "decision": decision})
}

#[track_caller]
fn call(lab: &Lab, url: &str, args: &[&str], requests: &[Value]) -> Run {
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let mut command = lab.command("dms-call", args);
    run(command.env("DMS_RABBITMQ_URL", url), lines.as_bytes())
}

fn answering(lab: &Lab, broker: &Broker) -> Listener {
    Listener::start(lab, broker, &[&["--jobs", "1", "--"], &ANSWER[..]].concat())
}

/// A caller that is kept running.
fn caller(lab: &Lab, url: &str, args: &[&str]) -> Filter {
    Filter::start(lab.command("dms-call", args).env("DMS_RABBITMQ_URL", url))
}

#[test]
fn a_line_in_is_a_line_out_and_the_exit_code_says_whether_all_went_well() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let _listener = answering(&lab, &broker);
    let requests: Vec<Value> =
        (0..20).map(|number| request(&lab.node, &number.to_string())).collect();
    let answers = call(&lab, &broker.url(), &[], &requests).expect(0).lines();
    let words: Vec<&Value> = answers.iter().map(|answer| &answer["success_msg"]).collect();
    let wanted: Vec<Value> = (0..20).map(|number| json!(number.to_string())).collect();
    assert_eq!(words, wanted.iter().collect::<Vec<_>>());
    let mixed = [request(&lab.node, "x"), json!([1]), request(&lab.node, "y")];
    let answers = call(&lab, &broker.url(), &[], &mixed).expect(1).lines();
    assert_eq!(answers[1]["error_code"], "validation");
    assert_eq!(
        (&answers[0]["success_msg"], &answers[2]["success_msg"]),
        (&json!("x"), &json!("y"))
    );
}

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
fn where_nobody_listens_it_says_so_at_once() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let start = Instant::now();
    let requests = [request(&lab.node, "x"), request("no-such-node", "x")];
    for answer in call(&lab, &broker.url(), &[], &requests).expect(1).lines() {
        assert_eq!(answer["error_code"], "no_listener", "{answer}");
    }
    // And where there is a queue, but nobody reads it.
    drop(answering(&lab, &broker));
    eventually("the broker knows it too", || {
        broker.queue(&lab.queue()).is_some_and(|queue| queue.consumers == 0)
    });
    let answer = call(&lab, &broker.url(), &[], &requests[..1]).expect(1).line();
    assert_eq!(answer["error_code"], "no_listener", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(broker.queue(&lab.queue()).map(|queue| queue.messages), Some(0), "it was sent");
}

#[test]
fn it_can_wait_for_a_listener_within_its_time() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let mut waiting = caller(&lab, &broker.url(), &["--wait-for-listener"]);
    waiting.tell(&request(&lab.node, "at last"));
    std::thread::sleep(Duration::from_millis(300));
    let _listener = answering(&lab, &broker);
    assert_eq!(waiting.answer()["success_msg"], "at last");
    let start = Instant::now();
    let args = ["--wait-for-listener", "--timeout", "1"];
    let answer = call(&lab, &broker.url(), &args, &[request("nobody", "x")]).expect(1).line();
    assert_eq!(answer["error_code"], "no_listener", "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_ones() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let _listener = answering(&lab, &broker);
    let mut caller = caller(&lab, &broker.url(), &["--timeout", "1"]);
    // Of one id: the caller tries again what it has heard nothing of.
    let mut late = request(&lab.node, "late");
    late["do"] = json!("hang");
    late["request_id"] = json!("r-1");
    let start = Instant::now();
    assert_eq!(caller.ask(&late)["error_code"], "timeout");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let mut next = request(&lab.node, "next");
    next["request_id"] = json!("r-1");
    next["backup_target"]["id"] = json!("t2");
    eventually("the next one is answered with its own words", || {
        let answer = caller.ask(&next);
        assert_ne!(answer["success_msg"], "late", "the late answer was taken");
        answer["success_msg"] == "next"
    });
}

#[test]
fn the_message_outlives_neither_its_caller_nor_the_broker() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let answer = br#"{"status":"success","error_msg":null,"success_msg":"done"}"#;
    let server = Peer::server(&broker, &lab.queue(), Box::new(|_| Some(answer.to_vec())));
    let mut request = request(&lab.node, "x");
    request["request_id"] = json!("r-1");
    request["deadline"] = json!(1e9);
    let line = call(&lab, &broker.url(), &["--timeout", "20"], &[request.clone()]).expect(0).line();
    assert_eq!(line["success_msg"], "done");
    let heard = server.hear();
    let properties = &heard.properties;
    assert_eq!(properties.delivery_mode(), &Some(1), "it is written to the broker's disk");
    assert!(properties.correlation_id().as_ref().is_some_and(|id| id.len() == 36));
    assert_eq!(properties.content_type().as_deref(), Some("application/json"));
    let millis: u64 = properties.expiration().as_ref().and_then(|ms| ms.parse().ok()).unwrap_or(0);
    assert!((10_000..=20_000).contains(&millis), "{millis}");
    assert!(
        properties.reply_to().as_ref().is_some_and(|q| q.starts_with("amq.rabbitmq.reply-to."))
    );
    request.as_object_mut().expect("it is one").remove("deadline");
    assert_eq!(heard.json(), request);
}

#[test]
fn the_plan_travels_and_is_there_again_in_the_answer() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let answers = [
        json!({"status": "success", "error_msg": null, "success_msg": "x"}),
        json!({"status": "error", "error_msg": "no", "success_msg": null}),
        json!({"status": "error", "error_msg": "no", "success_msg": null, "error_code": "busy",
            "plan": plan("other", "unmount", "unmount")}),
        json!("what?"),
    ];
    let mut replies = answers.into_iter();
    let handler = move |_: &_| replies.next().map(|answer| answer.to_string().into_bytes());
    let server = Peer::server(&broker, &lab.queue(), Box::new(handler));
    let mut request = request(&lab.node, "x");
    request["plan"] = plan(&lab.node, "mount", "mount");
    let requests = vec![request.clone(); 4];
    let lines = call(&lab, &broker.url(), &[], &requests).expect(1).lines();
    for line in &lines {
        assert_eq!(line["plan"], request["plan"], "{line}");
    }
    let codes: Vec<&Value> = lines.iter().map(|line| &line["error_code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!("mount"), &json!("busy"), &json!("internal")]);
    assert_eq!(lines[0]["mount_path"], "/m/t1", "what the plan knows and the server did not say");
    assert_eq!(server.hear().json()["plan"], request["plan"]);
}

#[test]
fn what_needs_no_node_needs_no_broker() {
    let lab = Lab::new();
    let mut release = request(&lab.node, "x");
    release["action"] = json!("unmount");
    release["plan"] = plan(&lab.node, "unmount", "release");
    let error = r#"{"error_msg":"no","status":"error","success_msg":null,"error_code":"database"}"#;
    let mut command = lab.command("dms-call", &[]);
    command.env("DMS_RABBITMQ_URL", "amqp://127.0.0.1:1");
    let said = run(&mut command, format!("{release}\n{error}\n{{}}\n").as_bytes());
    let lines: Vec<&str> = said.expect(1).stdout.lines().collect();
    let answer: Value = serde_json::from_str(lines[0]).expect("a response");
    assert_eq!((&answer["status"], &answer["unmounted"]), (&json!("success"), &json!(false)));
    assert_eq!(answer["plan"], release["plan"]);
    assert_eq!((lines[1], lines.len()), (error, 3));
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
fn a_deadline_that_has_passed_needs_no_broker() {
    let lab = Lab::new();
    let mut late = request("n1", "x");
    late["deadline"] = json!(1.0);
    let answer = call(&lab, "amqp://127.0.0.1:1", &[], &[late]).expect(1).line();
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(answer["error_msg"].to_string().contains("before the request was sent"), "{answer}");
}

#[test]
fn the_reason_is_told_however_often_it_was_tried() {
    let lab = Lab::new();
    let url = "amqp://127.0.0.1:1?connection_attempts=100&retry_delay=0.1";
    let check = call(&lab, url, &["--check", "--timeout", "1"], &[]);
    assert!(check.expect(111).stderr.contains("Connection refused"), "{check}");
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

#[test]
fn somebody_at_a_terminal_is_told_what_it_waits_for() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let _listener = answering(&lab, &broker);
    let line = request(&lab.node, "x").to_string();
    let script = format!("printf '%s\\n' '{line}' | dms-call --timeout 30");
    let mut command = lab.command("script", &["-qec", &script, "/dev/null"]);
    command.env("DMS_RABBITMQ_URL", broker.url()).stdin(Stdio::null());
    let said = run(&mut command, b"");
    let wanted = format!("waiting up to 30 s for {} to mount t1", lab.queue());
    assert!(said.expect(0).stdout.contains(&wanted), "{said}");
}
