//! The ledger on the node, the ledger at the client: the same requests, over a real broker and on
//! real mounts.

use std::fs;

use dms_tests::{Broker, Filter, Lab, Listener, Run, eventually, run};
use serde_json::{Value, json};

/// A node, and a client on another host.
struct Pair {
    node: Lab,
    client: Lab,
    broker: Broker,
}

impl Pair {
    fn new() -> Pair {
        Pair { node: Lab::named("node-1"), client: Lab::named("client"), broker: Broker::start() }
    }

    fn ledger_on_node(&self) -> Listener {
        let pipeline = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/dms-pipeline");
        Listener::start(&self.node, &self.broker, &["--", pipeline])
    }

    fn no_ledger_on_node(&self) -> Listener {
        Listener::start(&self.node, &self.broker, &["--", "dms-mount"])
    }

    /// Runs a script on the client's host, with these lines as its input.
    #[track_caller]
    fn at_client(&self, script: &str, requests: &[Value]) -> Run {
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        let mut command = self.client.command("sh", &["-c", script]);
        run(command.env("DMS_RABBITMQ_URL", self.broker.url()), lines.as_bytes())
    }

    /// The pipeline with the ledger at the client.
    #[track_caller]
    fn ask(&self, request: &Value) -> Value {
        let script = "dms-lock --each -- sh -c 'dms-ledger plan | dms-call | dms-ledger commit'";
        let said = self.at_client(script, std::slice::from_ref(request));
        assert!(!said.stdout.contains("lab-token"), "{said}");
        said.line()
    }

    fn request(&self, action: &str, job: i32) -> Value {
        let mut request = self.node.request(action, job, "t1");
        let path = self.node.mount_point("t1").display().to_string();
        request["backup_target"]["filesystem_export_mount_path"] = path.into();
        request
    }
}

#[test]
fn with_the_ledger_on_the_node_callers_need_none() {
    let pair = Pair::new();
    let _listener = pair.ledger_on_node();
    let requests: Vec<Value> = [("mount", 1), ("mount", 2), ("unmount", 1), ("unmount", 2)]
        .map(|(action, job)| pair.request(action, job))
        .into();
    let answers = pair.at_client("dms-call", &requests).expect(0).lines();
    let mounted = |answer: &Value| answer["physically_mounted"] == json!(true);
    assert!(mounted(&answers[0]) && !mounted(&answers[1]), "{answers:?}");
    assert_eq!(answers[2]["active_mounts_remaining"], 1);
    assert_eq!(answers[3]["unmounted"], true);
    pair.node.assert_gone("t1");
    assert_eq!(pair.node.history("t1").len(), 4);
    assert!(!pair.client.path("state").exists(), "the client made a ledger of its own");
    // Each message's id is the operation's: a message that comes again is known.
    let mut again = pair.request("mount", 3);
    again["request_id"] = json!("message-7");
    pair.at_client("dms-call", &[again.clone(), again]).expect(0);
    // The second look at it is an operation of its own.
    let history = pair.node.history("t1");
    assert_eq!(history.len(), 6, "{history:?}");
    assert_eq!(history.iter().filter(|operation| operation["operation"] == "message-7").count(), 1);
    assert_eq!(pair.node.users("t1"), [3]);
    pair.at_client("dms-call", &[pair.request("unmount", 3)]).expect(0);
}

#[test]
fn with_the_ledger_at_the_client_the_node_needs_none() {
    let pair = Pair::new();
    let _listener = pair.no_ledger_on_node();
    assert_eq!(pair.ask(&pair.request("mount", 1))["physically_mounted"], true);
    assert_eq!(pair.ask(&pair.request("mount", 2))["reused_existing"], true);
    let left = pair.ask(&pair.request("unmount", 1));
    assert_eq!((&left["unmounted"], &left["active_mounts_remaining"]), (&json!(false), &json!(1)));
    assert!(pair.node.mounted("t1").is_some());
    assert_eq!(pair.ask(&pair.request("unmount", 2))["unmounted"], true);
    pair.node.assert_gone("t1");
    assert_eq!(pair.client.history("t1").len(), 4);
    assert!(!pair.node.path("state").exists(), "the node made a ledger of its own");
}

#[test]
fn the_fence_holds_on_the_node_for_a_plan_that_comes_late() {
    let pair = Pair::new();
    let _listener = pair.no_ledger_on_node();
    pair.ask(&pair.request("mount", 1));
    // Planned, and then held up on its way: its client is taken for dead.
    let unmount = pair.request("unmount", 1);
    let late = pair.at_client("dms-lock -- dms-ledger plan", &[unmount]).expect(0).line();
    assert_eq!(late["plan"]["decision"], "unmount");
    assert_eq!(pair.ask(&pair.request("mount", 2))["status"], "success");
    let answer = pair.at_client("dms-call | dms-ledger commit", &[late]).line();
    assert_eq!(answer["error_code"], "stale", "{answer}");
    assert!(pair.node.mounted("t1").is_some(), "it was unmounted under job 2");
    assert_eq!(pair.ask(&pair.request("unmount", 2))["status"], "success");
}

#[test]
fn there_is_one_ledger_for_each_request() {
    let pair = Pair::new();
    let _listener = pair.ledger_on_node();
    let answer = pair.ask(&pair.request("mount", 1));
    assert_eq!((&answer["status"], &answer["error_code"]), (&json!("error"), &json!("validation")));
    assert!(answer["error_msg"].to_string().contains("plan"), "{answer}");
    pair.node.assert_gone("t1");
    assert_eq!(pair.client.users("t1"), [0; 0]);
}

#[test]
fn a_request_that_found_nobody_can_be_made_again() {
    let pair = Pair::new();
    let mut request = pair.request("mount", 1);
    request["request_id"] = json!("r-1");
    assert_eq!(pair.ask(&request)["error_code"], "no_listener");
    let _listener = pair.no_ledger_on_node();
    assert_eq!(pair.ask(&request)["status"], "success");
    assert_eq!(pair.client.users("t1"), [1]);
    assert_eq!(pair.ask(&pair.request("unmount", 1))["status"], "success");
}

#[test]
fn a_node_that_does_not_answer_leaves_an_unknown_outcome_that_the_next_request_settles() {
    let pair = Pair::new();
    let hung = Listener::start(&pair.node, &pair.broker, &["--", "sleep", "1000"]);
    let script =
        "dms-lock --each -- sh -c 'dms-ledger plan | dms-call --timeout 1 | dms-ledger commit'";
    let answer = pair.at_client(script, &[pair.request("mount", 1)]).expect(1).line();
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert_eq!(pair.client.history("t1")[0]["status"], "unsettled");
    drop(hung);
    let _listener = pair.no_ledger_on_node();
    assert_eq!(pair.ask(&pair.request("mount", 2))["status"], "success");
    assert_eq!(pair.client.users("t1"), [2]);
    assert_eq!(pair.ask(&pair.request("unmount", 2))["unmounted"], true);
    pair.node.assert_gone("t1");
}

#[test]
fn no_token_rests_on_the_brokers_disk() {
    let pair = Pair::new();
    let _listener =
        Listener::start(&pair.node, &pair.broker, &["--jobs", "1", "--", "sleep", "60"]);
    let mut callers: Vec<Filter> = (0..20)
        .map(|_| {
            let mut command = pair.client.command("dms-call", &["--timeout", "60"]);
            Filter::start(command.env("DMS_RABBITMQ_URL", pair.broker.url()))
        })
        .collect();
    for (caller, job) in callers.iter_mut().zip(0..) {
        caller.tell(&pair.request("mount", job));
    }
    eventually("they wait", || {
        pair.broker.queue(&pair.node.queue()).is_some_and(|queue| queue.messages == 20)
    });
    let mut dirs = vec![pair.broker.root().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("it is ours").flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                let token = b"lab-token-must-not-leak";
                let found = bytes.windows(token.len()).any(|window| window == token);
                assert!(!found, "a token is in {}", path.display());
            }
        }
    }
}
