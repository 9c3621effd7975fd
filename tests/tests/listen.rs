//! What dms-listen does with the messages of its queue.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use amiquip::AmqpProperties;
use dms_tests::{Broker, Lab, Listener, Peer, RemoteLab, eventually, run, wakes};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_message_becomes_a_line_and_its_answer_a_reply() {
    let remote = RemoteLab::shared();
    let queue = remote.lab.queue();
    let _listener = Listener::start(&remote.lab, &remote.broker, &["--", "cat"]);
    let request = json!({"host": remote.lab.node, "x": "ä\n1", "keystone_token": "t"});
    let pretty = serde_json::to_vec_pretty(&request).expect("plain data");
    remote.peer.send(&queue, remote.peer.properties("c-1"), &pretty);
    let reply = remote.peer.hear();
    let line = reply.json();
    assert_eq!((&line["x"], &line["request_id"]), (&request["x"], &json!("c-1")));
    assert!(line["deadline"].as_f64().is_some_and(|s| s > 290.0), "{line}");
    let wanted = AmqpProperties::default()
        .with_content_type("application/json".into())
        .with_correlation_id("c-1".into());
    assert_eq!(reply.properties, wanted);
    remote.assert_empty();
}

#[test]
fn without_a_reply_queue_it_is_done_and_acknowledged() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&[]);
    let request = remote.request("t1", "nothing").to_string();
    for properties in
        [AmqpProperties::default(), AmqpProperties::default().with_correlation_id("c".into())]
    {
        remote.peer.send(&remote.lab.queue(), properties, request.as_bytes());
    }
    eventually("both are done", || remote.notes().len() == 4);
    remote.assert_empty();
}

#[test]
fn an_answer_goes_only_to_a_reply_queue() {
    let remote = RemoteLab::shared();
    let others =
        Peer::server(&remote.broker, &format!("dms.other-{}", remote.lab.node), Box::new(|_| None));
    let listener = remote.obeying(&[]);
    let request = remote.request("t1", "nothing").to_string();
    for queue in [others.reply_queue.as_str(), "amq.direct", "x.amq.gen-y"] {
        let properties = remote.peer.properties("bad").with_reply_to(queue.into());
        remote.peer.send(&remote.lab.queue(), properties, request.as_bytes());
    }
    listener.wait_for("refused a request", 3);
    remote.send("good", "t1", "nothing");
    assert_eq!(remote.answer()["success_msg"], "good");
    assert_eq!(remote.notes(), ["begin good", "end good"], "a refused request was done");
    assert!(others.hear_within(Duration::from_millis(300)).is_none(), "another got our answer");
    drop(listener);
    let pattern = format!("dms.other-{}*", &remote.lab.node[..3]);
    let _listener = remote.obeying(&["--reply-to", &pattern]);
    let properties = remote.peer.properties("ours").with_reply_to(others.reply_queue.clone());
    remote.peer.send(&remote.lab.queue(), properties, request.as_bytes());
    assert_eq!(others.hear().json()["success_msg"], "ours");
}

#[test]
fn what_is_no_request_for_this_node_is_answered_and_not_done() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&[]);
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let bodies: [&[u8]; 7] =
        [b"", b"{", b"[1]", b"\xff", b"{\"host\":\"elsewhere\"}", b"{\"host\":1}", huge.as_bytes()];
    for body in bodies {
        remote.peer.send(&remote.lab.queue(), remote.peer.properties("c"), body);
        let answer = remote.answer();
        let status = (&answer["status"], &answer["error_code"]);
        assert_eq!(status, (&json!("error"), &json!("validation")), "{answer}");
    }
    assert_eq!(remote.notes(), [""; 0]);
    remote.assert_empty();
}

#[test]
fn a_request_whose_sender_has_given_up_is_not_done() {
    let remote = RemoteLab::shared();
    let queue = remote.lab.queue();
    drop(remote.obeying(&[]));
    let send = |id: &str, millis: &str| {
        let properties = remote.peer.properties(id).with_expiration(millis.into());
        remote.peer.send(
            &queue,
            properties,
            remote.request("t1", "nothing").to_string().as_bytes(),
        );
    };
    send("late", "1");
    send("good", "60000");
    std::thread::sleep(Duration::from_millis(20));
    let _listener = remote.obeying(&[]);
    assert_eq!(remote.answer()["success_msg"], "good");
    assert_eq!(remote.notes(), ["begin good", "end good"]);
    // Nor one that it would wait for longer than its sender, though nothing has happened for a while.
    std::thread::sleep(Duration::from_millis(1200));
    remote.send("slow", "t1", "sleep 2");
    send("late", "500");
    let answers = remote.answers(2);
    assert_eq!((answers[0].0.as_str(), &answers[0].1["error_code"]), ("late", &json!("timeout")));
}

#[test]
fn who_has_nothing_to_do_is_not_woken() {
    let remote = RemoteLab::shared();
    let listener = remote.obeying(&[]);
    remote.send("1", "t1", "nothing");
    remote.answer();
    // Whether anything waits, it looks for a second at most.
    std::thread::sleep(Duration::from_secs(2));
    let before = wakes(listener.pid());
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(wakes(listener.pid()) - before, 0);
}

#[test]
fn requests_without_an_id_are_all_done_though_the_broker_marks_them_as_handed_out() {
    let mut remote = RemoteLab::on(Arc::new(Broker::start()));
    let listener = remote.obeying(&[]);
    let request = remote.request("t1", "nothing").to_string();
    let send = |remote: &RemoteLab, reply_to: Option<String>| {
        let mut properties = AmqpProperties::default().with_delivery_mode(2);
        if let Some(queue) = reply_to {
            properties = properties.with_reply_to(queue);
        }
        remote.peer.send(&remote.lab.queue(), properties, request.as_bytes());
    };
    // That of a client that is gone: nobody hears the answers, but they are sent.
    let gone = Some("amq.gen-gone".to_owned());
    send(&remote, None);
    send(&remote, gone.clone());
    eventually("two are done", || remote.notes().len() == 4);
    remote.assert_empty();
    // What is sent while the listener stands still waits in the queue.
    listener.signal(Signal::SIGSTOP);
    remote.cut_power();
    for _ in 0..6 {
        send(&remote, None);
        send(&remote, gone.clone());
    }
    eventually("they wait", || {
        remote.broker.queue(&remote.lab.queue()).is_some_and(|queue| queue.messages == 12)
    });
    remote.cut_power();
    listener.signal(Signal::SIGCONT);
    eventually("all are done", || remote.notes().len() == 28);
    remote.assert_empty();
    assert_eq!(remote.notes().len(), 28, "one was done twice: {}", listener.log());
}

#[test]
fn an_answer_that_breaks_the_connection_does_not_leave_the_node_deaf() {
    // On a broker of its own: it does not take such a name well.
    let remote = RemoteLab::on(Arc::new(Broker::start()));
    let listener = remote.obeying(&[]);
    let request = remote.request("t1", "nothing").to_string();
    // One that is done, and one that is refused.
    for body in [request.as_str(), "{"] {
        let poison =
            remote.peer.properties("poison").with_reply_to("amq.rabbitmq.reply-to.g1h!!!.x".into());
        remote.peer.send(&remote.lab.queue(), poison, body.as_bytes());
    }
    listener.wait_for("gave up answering", 2);
    remote.send("good", "t2", "nothing");
    assert_eq!(remote.answer()["success_msg"], "good");
    assert_eq!(remote.notes().iter().filter(|note| *note == "begin poison").count(), 1);
    remote.assert_empty();
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let lab = Lab::new();
    let url = "amqp://u:hunter2@127.0.0.1:1";
    for (url, args, code, words) in [
        (None, &["--", "cat"][..], 100, "DMS_RABBITMQ_URL is not set"),
        (Some("http://u:hunter2@h"), &["--", "cat"], 100, "DMS_RABBITMQ_URL: is neither amqp"),
        (Some(url), &[], 100, "--help"),
        (Some(url), &["--jobs", "0", "--", "cat"], 100, "--jobs 0"),
        (Some(url), &["--key", "x", "--", "cat"], 100, "JSON pointer"),
        (Some(url), &["--timeout", "0", "--", "cat"], 100, "--timeout 0"),
        (Some(url), &["--timeout=-1", "--", "cat"], 100, "--timeout"),
        (Some(url), &["--queue", "amq.x", "--", "cat"], 100, "--queue: "),
        (Some(url), &["--", "no-such-program"], 127, "no-such-program"),
        (Some(url), &["--", "/etc/passwd"], 126, "/etc/passwd"),
        (Some("amqp://u:1#hunter2@h"), &["--", "cat"], 100, "%23"),
    ] {
        let mut command = lab.command("dms-listen", args);
        if let Some(url) = url {
            command.env("DMS_RABBITMQ_URL", url);
        }
        let run = run(&mut command, b"");
        assert!(run.expect(code).stderr.contains(words), "{run}");
        assert!(!run.stderr.contains("hunter2") && run.stderr.lines().count() == 1, "{run}");
    }
}

#[test]
fn neither_password_nor_token_is_in_any_log() {
    let remote = RemoteLab::shared();
    let url = remote.broker.url();
    let mut command = remote.lab.command(
        "dms-listen",
        &["--", "sh", "-c", "read -r x; echo '{\"status\":\"success\"}'; sleep 1000"],
    );
    command.env("DMS_RABBITMQ_URL", &url).env("DMS_LOG_LEVEL", "TRACE");
    let listener = Listener::spawn(&remote.lab, &mut command);
    listener.wait_for("serving", 1);
    let request = remote.lab.request("mount", 1, "t1");
    let mut command = remote.lab.command("dms-call", &["--timeout", "5"]);
    command.env("DMS_RABBITMQ_URL", &url).env("DMS_LOG_LEVEL", "TRACE");
    let call = run(&mut command, format!("{request}\n").as_bytes());
    call.expect(0);
    let password = url.split([':', '@']).nth(2).expect("it is in there");
    for text in [&listener.log(), &call.stderr, &call.stdout] {
        for secret in [Broker::PASSWORD, password, "lab-token-must-not-leak"] {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
    // Nor is the password the filter's business.
    let filters = listener.children();
    assert_eq!(filters.len(), 1);
    let environment = fs::read(format!("/proc/{}/environ", filters[0])).expect("it runs");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("DMS_NODE_ID") && !environment.contains(password));
}
