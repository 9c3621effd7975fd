//! The Python original, both ways: its client asks our listener, and our caller asks its server.
//!
//! `fixtures/wire.jsonl` has one exchange a line, as captured between the original's client and its
//! server: how queues were declared, all properties, bodies as they were. What is compared is what
//! programs go by: properties, the shape of the body, `status`. Where we answer otherwise on
//! purpose, [`OTHERWISE`] says why.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use amiquip::AmqpProperties;
use dms_tests::{Broker, Filter, Lab, Listener, Peer, eventually};
use serde_json::{Value, json};

/// The node of the exchanges, and where its targets are mounted.
const NODE: &str = "bl-wire";
const BASE: &str = "/srv/dms/mnt";

/// Where our listener's status is another one than the original's.
const OTHERWISE: [(&str, &str); 8] = [
    ("01_nfs_mount_first", "its server is not here; nfs_guest mounts it"),
    ("10_nfs_mount_already_mounted", "its server is not here; nfs_guest mounts it"),
    ("46_ok_minimal_mount", "its server is not here; nfs_guest mounts it"),
    ("08_nfs_mount_reports_ok_mounts_nothing", "nothing is mounted: that is no success"),
    ("15_s3_unmount_last", "the target is unmounted, as was asked: that is no error"),
    ("19_s3_mount_no_secret", "without a secret the original takes whatever keys its host has"),
    ("41_err_unmount_no_path", "a target has a path also where none is named"),
    ("20_s3_unmount_no_secret", "the target is not mounted, as was asked: that is no error"),
];

/// Where our client's status is another one than the original's.
const CLIENT_OTHERWISE: [(&str, &str); 3] = [
    ("25_client_missing_context", "nothing here needs a context"),
    ("26_client_missing_target_field", "an NFS target needs no secret_ref"),
    ("29_client_documented_shape_job_jobid", "the documented shape is accepted too"),
];

/// The same words were sent twice, and answered otherwise the second time: our stand-in for the
/// original's server gives the second answer to both.
const ASKED_AGAIN: &str = "15_s3_unmount_last";

fn exchanges() -> Vec<Value> {
    let text = include_str!("../fixtures/wire.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn name(exchange: &Value) -> &str {
    exchange["name"].as_str().expect("each has one")
}

/// The original's properties, with the reply queue of our client.
fn properties(captured: &Value, reply_queue: &str) -> AmqpProperties {
    let text = |name: &str| captured[name].as_str().map(str::to_owned);
    let mut properties = AmqpProperties::default();
    if let Some(kind) = text("content_type") {
        properties = properties.with_content_type(kind);
    }
    if let Some(mode) = captured["delivery_mode"].as_u64() {
        properties = properties.with_delivery_mode(u8::try_from(mode).expect("1 or 2"));
    }
    if let Some(id) = text("correlation_id") {
        properties = properties.with_correlation_id(id);
    }
    match text("reply_to") {
        Some(_) => properties.with_reply_to(reply_queue.to_owned()),
        None => properties,
    }
}

/// The captured body, with this lab's paths and secrets: those of the capture are not here.
fn body(lab: &Lab, request: &Value) -> Vec<u8> {
    if let Some(hex) = request["body_hex"].as_str() {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        return (0..hex.len()).step_by(2).map(byte).collect();
    }
    let text = request["body"].as_str().unwrap_or_default();
    let base = lab.path("mnt").display().to_string();
    let good = lab.secret("good", |_| ());
    ["bucket1", "leave1"]
        .iter()
        .fold(text.replace(BASE, &base), |text, secret| {
            text.replace(&format!("http://127.0.0.1:9311/v1/secrets/{secret}"), &good)
        })
        .into_bytes()
}

#[test]
fn our_listener_serves_the_originals_client_while_it_holds_its_lock() {
    let (lab, broker) = (Lab::named(NODE), Broker::start());
    // Its NFS servers are not here: a kernel that has a client would wait for them.
    let filter = ["--", "env", "DMS_REQUEST_TIMEOUT=10", "dms-mount"];
    let _listener = Listener::start(&lab, &broker, &filter);
    let peer = Peer::client(&broker);
    // The client's lock file, exclusive, until it has its answer.
    let lock = lab.hold(&["dms_mount_unmount"]);
    let otherwise: HashMap<&str, &str> = OTHERWISE.into();
    let mut compared = 0;
    for exchange in exchanges() {
        let (Some(request), name) = (exchange["request"].as_object(), name(&exchange)) else {
            continue;
        };
        let request = Value::Object(request.clone());
        let queue = request["queue"].as_str().expect("it was sent somewhere");
        if exchange["declare"].is_object() {
            peer.declare(queue);
        }
        let asked = properties(&request["properties"], &peer.reply_queue);
        peer.send(queue, asked.clone(), &body(&lab, &request));
        let Some(wanted) = exchange["reply"].as_object() else {
            // It wanted no answer, or its server was down, which ours is not.
            if asked.reply_to().is_some() {
                peer.hear();
            }
            continue;
        };
        let answer = peer.hear();
        assert_eq!(answer.properties, properties(&wanted["properties"], ""), "{name}");
        let answer = answer.json();
        let theirs: Value =
            serde_json::from_str(wanted["body"].as_str().expect("text")).expect("JSON");
        for field in theirs.as_object().expect("an object").keys() {
            assert!(answer.get(field).is_some(), "{name}: no {field} in {answer}");
        }
        let same = answer["status"] == theirs["status"];
        assert_eq!(same, !otherwise.contains_key(name), "{name}: {answer} for {theirs}");
        let unused = if answer["status"] == "success" { "error_msg" } else { "success_msg" };
        assert_eq!(answer[unused], Value::Null, "{name}: {answer}");
        compared += 1;
    }
    assert_eq!(compared, 37);
    lock.release();
    assert!(lab.mounted("w-s3").is_none() && lab.mounted("w-s3l").is_none());
}

/// The original's server: it gives the answer of the capture, and of what it was not asked then,
/// says that it is so.
fn original(broker: &Broker, heard: &Arc<Mutex<Vec<Value>>>) -> Peer {
    let mut replies: HashMap<String, Vec<u8>> = HashMap::new();
    for exchange in exchanges() {
        if let (Some(body), Some(request)) =
            (exchange["reply"]["body"].as_str(), exchange["request"]["body"].as_str())
            && let Ok(request) = serde_json::from_str::<Value>(request)
        {
            replies.insert(key(&request), body.into());
        }
    }
    let heard = Arc::clone(heard);
    let handler = move |message: &dms_tests::Heard| {
        let request = message.json();
        let known = replies.get(&key(&request)).cloned();
        heard.lock().expect("nobody panics with it").push(json!({
            "request": request, "expiration": message.properties.expiration(),
            "content_type": message.properties.content_type(),
            "correlation_id": message.properties.correlation_id(),
        }));
        let so = json!({"status": "success", "error_msg": null, "success_msg": "Already so"});
        Some(known.unwrap_or_else(|| so.to_string().into_bytes()))
    };
    Peer::server(broker, &format!("dms.{NODE}"), Box::new(handler))
}

fn key(request: &Value) -> String {
    let target = &request["backup_target"];
    let (action, job) = (&request["action"], &request["jobid"]);
    format!("{action} {job} {} {}", target["id"], target["secret_ref"])
}

#[test]
fn the_originals_server_serves_our_caller() {
    let (lab, broker) = (Lab::named(NODE), Broker::start());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let _server = original(&broker, &heard);
    let mut caller =
        Filter::start(lab.command("dms-call", &[]).env("DMS_RABBITMQ_URL", broker.url()));
    let mut compared = 0;
    for exchange in exchanges() {
        let (Some(sent), true) =
            (exchange["request"]["body"].as_str(), exchange["caller"].is_object())
        else {
            continue;
        };
        let Some(reply) = exchange["reply"]["body"].as_str() else { continue };
        let sent: Value = serde_json::from_str(sent).expect("JSON");
        let reply: Value = serde_json::from_str(reply).expect("JSON");
        let answer = caller.ask(&sent);
        let got = heard.lock().expect("nobody panics with it").pop().expect("it was asked");
        assert_eq!(got["request"], sent, "what the original's client sends");
        assert_eq!(got["content_type"], "application/json");
        assert!(got["correlation_id"].is_string() && got["expiration"].is_string());
        if name(&exchange) != ASKED_AGAIN {
            for field in ["status", "error_msg", "success_msg"] {
                assert_eq!(answer[field], reply[field], "{}", name(&exchange));
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 18);
}

#[test]
fn a_ledger_of_ours_with_the_originals_server_comes_to_the_same() {
    let (lab, broker) = (Lab::named(NODE), Broker::start());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let server = original(&broker, &heard);
    let pipeline = ["--each", "--", "sh", "-c", "dms-ledger plan | dms-call | dms-ledger commit"];
    let mut client = lab.command("dms-lock", &pipeline);
    client.env("DMS_RABBITMQ_URL", broker.url()).env("DMS_MOUNT_BASE", BASE);
    let mut client = Filter::start(&mut client);
    let otherwise: HashMap<&str, &str> = CLIENT_OTHERWISE.into();
    let mut compared = 0;
    for exchange in exchanges() {
        let (caller, name) = (&exchange["caller"], name(&exchange));
        if !caller.is_object() || name >= "15_" {
            continue;
        }
        let mut request = caller["request"].clone();
        request["action"] = caller["action"].clone();
        let answer = client.ask(&request);
        let wanted = &caller["result"];
        assert_eq!(answer["status"], wanted["status"], "{name}: {answer}");
        for field in ["mount_path", "unmounted", "active_mounts_remaining"] {
            if let Some(value) = wanted.get(field) {
                assert_eq!(&answer[field], value, "{name}: {answer}");
            }
        }
        assert_eq!(bindings(&lab), theirs(&caller["ledger"]), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 14);
    for exchange in exchanges().iter().filter(|exchange| exchange["reply"].is_null()) {
        let (caller, name) = (&exchange["caller"], name(exchange));
        if !caller.is_object() || !("25_".."50_").contains(&name) {
            continue;
        }
        let mut request = caller["request"].clone();
        request["action"] = caller["action"].clone();
        let same = client.ask(&request)["status"] == caller["result"]["status"];
        assert_eq!(same, !otherwise.contains_key(name), "{name}");
    }
    // Without a server, both say error; the original says so after its time-out.
    drop(server);
    eventually("the queue has no reader", || {
        broker.queue(&lab.queue()).is_some_and(|queue| queue.consumers == 0)
    });
    let (last, mut request) = (exchanges().pop().expect("there are some"), Value::Null);
    request.clone_from(&last["caller"]["request"]);
    request["action"] = json!("mount");
    assert_eq!(last["caller"]["result"]["status"], "error");
    assert_eq!(client.ask(&request)["error_code"], "no_listener");
    client.end();
}

/// Who uses what, as our ledger has it.
fn bindings(lab: &Lab) -> BTreeSet<(i64, String)> {
    let list = lab.feed("dms-ledger", &["list", "--json"], "");
    let row = |row: &Value| Some((row["job"].as_i64()?, row["target"].as_str()?.to_owned()));
    list.expect(0).lines().iter().filter_map(row).collect()
}

/// Who uses what, as theirs had it.
fn theirs(rows: &Value) -> BTreeSet<(i64, String)> {
    let rows = rows.as_array().expect("a list");
    let used = rows.iter().filter(|row| row[3] == 1);
    used.filter_map(|row| Some((row[0].as_i64()?, row[1].as_str()?.to_owned()))).collect()
}
