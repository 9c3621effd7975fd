//! What dms-call makes of a request, and of the answer to it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dms_tests::calling::{answering, call, caller, request};
use dms_tests::{Broker, Lab, Peer, eventually, run};
use serde_json::{Value, json};

/// A plan for this host, as dms-ledger makes it.
fn plan(host: &str, action: &str, decision: &str) -> Value {
    json!({"operation": "op-1", "ledger": "ledger-1", "seq": 7, "job": 1, "target": "t1",
        "host": host, "path": "/m/t1", "action": action, "decision": decision})
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
fn a_deadline_that_has_passed_needs_no_broker() {
    let lab = Lab::new();
    let mut late = request("n1", "x");
    late["deadline"] = json!(1.0);
    let answer = call(&lab, "amqp://127.0.0.1:1", &[], &[late]).expect(1).line();
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(answer["error_msg"].to_string().contains("before the request was sent"), "{answer}");
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
