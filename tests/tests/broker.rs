//! Whatever happens to the connection, a listener that works is there afterwards, and no request is
//! lost that the broker still has, or done twice.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use dms_tests::{Broker, Lab, Listener, Peer, eventually, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A filter that notes each request, takes its time where it is told to, and answers.
const NOTE: &str = r#"
while read -r line; do
    id=$(printf %s "$line" | sed 's/.*"request_id":"\([^"]*\)".*/\1/')
    echo "$id" >>"$NOTES"
    case $line in *'"seconds":'*) sleep "$(printf %s "$line" | sed 's/.*"seconds":\([0-9]*\).*/\1/')" ;; esac
    echo '{"status":"success","error_msg":null,"success_msg":"'"$id"'"}'
done"#;

struct Node {
    lab: Lab,
    broker: Broker,
    listener: Listener,
}

impl Node {
    #[track_caller]
    fn new() -> Node {
        Node::with(Broker::start(), "")
    }

    #[track_caller]
    fn with(broker: Broker, query: &str) -> Node {
        let lab = Lab::unique();
        let url = format!("{}{query}", broker.url());
        let listener = Node::listen(&lab, &url);
        listener.wait_for("serving", 1);
        Node { lab, broker, listener }
    }

    fn listen(lab: &Lab, url: &str) -> Listener {
        let script = format!("NOTES={}; {NOTE}", lab.path("notes").display());
        Listener::begin(lab, url, &["--", "sh", "-c", &script])
    }

    fn done(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.lab.path("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    fn request(&self, seconds: u32) -> Value {
        json!({"host": self.lab.node, "seconds": seconds, "backup_target": {"id": "t1"}})
    }

    /// A client of the broker of today asks, and is answered.
    #[track_caller]
    fn assert_works(&self, id: &str) {
        let peer = Peer::client(&self.broker);
        let answer = peer.ask(&self.lab.queue(), id, &self.request(0));
        assert_eq!(answer["success_msg"], id, "{}", self.listener.log());
    }

    /// Sends a request that takes some time, and returns when it is being done.
    #[track_caller]
    fn begin(&self, peer: &Peer, id: &str, seconds: u32) {
        peer.request(&self.lab.queue(), id, &self.request(seconds));
        eventually("it is being done", || self.done().iter().any(|done| done == id));
    }

    #[track_caller]
    fn assert_queue_is_empty(&self) {
        eventually("all messages are acknowledged", || {
            self.broker.queue(&self.lab.queue()).is_some_and(|queue| queue.messages == 0)
        });
    }
}

#[test]
fn the_broker_is_restarted() {
    let mut node = Node::new();
    node.assert_works("before");
    node.broker.restart();
    node.listener.wait_for("serving", 2);
    node.assert_works("after");
}

#[test]
fn the_broker_dies_while_requests_run_and_wait() {
    let mut node = Node::new();
    let peer = Peer::client(&node.broker);
    node.begin(&peer, "runs", 12);
    peer.request(&node.lab.queue(), "waits", &node.request(0));
    eventually("both are out", || {
        node.broker.queue(&node.lab.queue()).is_some_and(|queue| queue.unacknowledged == 2)
    });
    node.broker.kill();
    node.broker.start_again();
    node.listener.wait_for("serving", 2);
    node.assert_queue_is_empty();
    assert_eq!(node.done(), ["runs", "waits"], "one was lost, or done twice");
    node.assert_works("after");
}

#[test]
fn the_broker_app_is_stopped_and_started() {
    let node = Node::new();
    let peer = Peer::client(&node.broker);
    node.begin(&peer, "runs", 4);
    node.broker.stop_app();
    node.broker.start_app();
    node.listener.wait_for("serving", 2);
    node.assert_queue_is_empty();
    node.assert_works("after");
    assert_eq!(node.done(), ["runs", "after"]);
}

#[test]
fn the_connection_is_closed_and_the_answer_still_arrives() {
    let node = Node::new();
    let peer = Peer::client(&node.broker);
    let clients = node.broker.connections().len();
    node.begin(&peer, "runs", 4);
    // The listener's connection alone: the client goes on waiting on its own.
    let queue = node.lab.queue();
    let close = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
         [Consumer | _] = rabbit_amqqueue:consumers(Q), \
         [{{connection, C}}] = rabbit_channel:info(element(1, Consumer), [connection]), \
         rabbit_networking:close_connection(C, \"test\")."
    );
    node.broker.ctl(&["eval", &close]);
    node.listener.wait_for("serving", 2);
    let answer = peer.hear();
    assert_eq!(answer.properties.correlation_id().as_deref(), Some("runs"));
    assert_eq!(answer.json()["success_msg"], "runs");
    assert_eq!(node.done(), ["runs"], "it was done twice");
    assert!(peer.hear_within(Duration::from_millis(300)).is_none(), "it was answered twice");
    node.assert_queue_is_empty();
    assert_eq!(node.broker.connections().len(), clients);
}

#[test]
fn the_broker_hangs() {
    let node = Node::with(Broker::start(), "?heartbeat=1&connection_timeout=1000");
    node.assert_works("before");
    node.broker.suspend();
    node.listener.wait_for("unable to serve", 1);
    // And goes on hanging while it is tried again.
    node.listener.wait_for("unable to connect", 1);
    node.broker.resume();
    node.listener.wait_for("serving", 2);
    node.assert_works("after");
}

#[test]
fn the_queue_is_deleted() {
    let node = Node::new();
    node.broker.ctl(&["delete_queue", &node.lab.queue()]);
    node.listener.wait_for("the queue was deleted", 1);
    node.listener.wait_for("serving", 2);
    node.assert_works("after");
}

#[test]
fn the_queue_is_there_with_other_arguments() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let queue = lab.queue();
    let declare = format!(
        "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>), true, false, \
         [{{<<\"x-message-ttl\">>, long, 60000}}], none, <<\"test\">>)."
    );
    broker.ctl(&["eval", &declare]);
    let listener = Node::listen(&lab, &broker.url());
    listener.wait_for("inequivalent arg 'x-message-ttl'", 1);
    assert!(listener.log().contains(&queue), "{}", listener.log());
    broker.ctl(&["delete_queue", &queue]);
    listener.wait_for("serving", 1);
    Node { lab, broker, listener }.assert_works("after");
}

#[test]
fn the_broker_lacks_memory_for_a_while() {
    let node = Node::new();
    let peer = Peer::client(&node.broker);
    node.begin(&peer, "runs", 3);
    node.broker.alarm();
    node.listener.wait_for("takes no messages", 1);
    node.broker.no_alarm();
    assert_eq!(peer.hear().json()["success_msg"], "runs");
    node.assert_works("after");
    assert_eq!(node.done(), ["runs", "after"]);
    assert!(!node.listener.log().contains("unable"), "{}", node.listener.log());
}

#[test]
fn the_broker_wants_its_acknowledgement_before_the_request_is_done() {
    let advanced = "[{rabbit, [{channel_tick_interval, 500}]}].";
    let node = Node::with(Broker::with_config("consumer_timeout = 2000", advanced), "");
    let peer = Peer::client(&node.broker);
    node.begin(&peer, "slow", 7);
    let answer = peer.hear();
    assert_eq!(answer.json()["success_msg"], "slow");
    node.listener.wait_for("acknowledgement", 1);
    assert_eq!(node.done(), ["slow"], "it was done again");
    node.assert_queue_is_empty();
    node.assert_works("after");
}

#[test]
fn nothing_happens_for_longer_than_any_heartbeat() {
    let node = Node::with(Broker::start(), "?heartbeat=1");
    let before = node.broker.connections();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(node.broker.connections(), before, "{}", node.listener.log());
    node.assert_works("after");
}

#[test]
fn the_listener_is_killed_with_a_request() {
    let node = Node::new();
    let peer = Peer::client(&node.broker);
    node.begin(&peer, "runs", 4);
    node.listener.signal(Signal::SIGKILL);
    let second = Node::listen(&node.lab, &node.broker.url());
    second.wait_for("serving", 1);
    assert_eq!(peer.hear().json()["success_msg"], "runs");
    node.assert_queue_is_empty();
}

#[test]
fn the_broker_is_down_at_the_start() {
    let (lab, mut broker) = (Lab::unique(), Broker::start());
    broker.stop();
    let listener = Node::listen(&lab, &broker.url());
    listener.wait_for("unable to connect", 1);
    broker.start_again();
    listener.wait_for("serving", 1);
    Node { lab, broker, listener }.assert_works("after");
}

#[test]
fn the_next_broker_takes_over() {
    let mut first = Broker::start();
    let second = Broker::start();
    let lab = Lab::unique();
    let listener = Node::listen(&lab, &format!("{},{}", first.url(), second.url()));
    listener.wait_for(&format!("on 127.0.0.1:{}", first.port()), 1);
    first.kill();
    listener.wait_for(&format!("serving {} on 127.0.0.1:{}", lab.queue(), second.port()), 1);
    Node { lab, broker: second, listener }.assert_works("after");
}

#[test]
fn the_peer_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let url = format!("amqp://u:p@127.0.0.1:{port}?connection_timeout=300,{}", broker.url());
    let start = Instant::now();
    let listener = Node::listen(&lab, &url);
    listener.wait_for("the broker does not answer", 1);
    listener.wait_for("serving", 1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn sigterm_ends_a_listener_that_has_no_broker() {
    let lab = Lab::unique();
    let mut listener = Node::listen(&lab, "amqp://127.0.0.1:1");
    listener.wait_for("unable to connect", 1);
    let start = Instant::now();
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn with_certificates_both_sides_know_who_is_there() {
    let broker = Broker::with_tls();
    let lab = Lab::unique();
    let base = broker.url().replace("amqp:", "amqps:");
    let base = base.replace(&format!(":{}", broker.port()), &format!(":{}", broker.tls_port()));
    let file = |name: &str| broker.tls_file(name).display().to_string();
    let url = |ca: &str, cert: &str, key: &str| {
        format!("{base}?cacertfile={}&certfile={}&keyfile={}", file(ca), file(cert), file(key))
    };
    let good = url("ca.pem", "client.pem", "client.key");
    let listener = Node::listen(&lab, &good);
    listener.wait_for("serving", 1);
    let check = |url: &str| {
        let mut command = lab.command("dms-call", &["--check", "--timeout", "5"]);
        run(command.env("DMS_RABBITMQ_URL", url), b"")
    };
    check(&good).expect(0);
    for (bad, words) in [
        (url("stranger.pem", "client.pem", "client.key"), "certificate verify failed"),
        // In TLS 1.3 the broker refuses a certificate by hanging up.
        (url("ca.pem", "stranger.pem", "stranger.key"), "unable to connect"),
        (format!("{base}?cacertfile={}", file("ca.pem")), "unable to connect"),
        (format!("{good}&server_name_indication=elsewhere.example"), "certificate verify failed"),
        (url("ca.pem", "client.pem", "no-such.key"), "no-such.key"),
        (url("client.key", "client.pem", "client.key"), "client.key"),
        (base.clone(), "certificate verify failed"),
    ] {
        let refused = check(&bad);
        assert!(refused.expect(111).stderr.contains(words), "{bad}: {refused}");
        assert!(!refused.stderr.contains("p%40ss"), "{refused}");
    }
    Node { lab, broker, listener }.assert_works("after");
}
