//! What dms-listen does with the messages of its queue.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiquip::AmqpProperties;
use dms_tests::{Broker, Lab, Listener, Peer, eventually, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A filter that notes when it begins and ends each line, and does what the request says.
const OBEY: &str = r#"
while read -r line; do
    id=$(printf %s "$line" | sed 's/.*"request_id":"\([^"]*\)".*/\1/')
    echo "begin $id $$" >>"$NOTES"
    case $line in
        *'"do":"sleep'*) sleep "$(printf %s "$line" | sed 's/.*"do":"sleep \([0-9.]*\)".*/\1/')" ;;
        *'"do":"hang"'*) sleep 1000 ;;
        *'"do":"die"'*) exit 3 ;;
        *'"do":"babble"'*) printf 'one\ntwo\n' ;;
    esac
    echo "end $id" >>"$NOTES"
    echo '{"status":"success","error_msg":null,"success_msg":"'"$id"'"}'
done"#;

struct Office {
    lab: Lab,
    broker: Arc<Broker>,
    peer: Peer,
}

impl Office {
    fn new() -> Office {
        Office::on(Broker::shared())
    }

    fn on(broker: Arc<Broker>) -> Office {
        let peer = Peer::client(&broker);
        Office { lab: Lab::unique(), broker, peer }
    }

    /// A power cut, on a broker that nobody else has. Who was connected has to connect again.
    #[track_caller]
    fn cut_power(&mut self) {
        let broker = Arc::get_mut(&mut self.broker).expect("a broker of one's own");
        broker.kill();
        broker.start_again();
        self.peer = Peer::client(&self.broker);
    }

    /// A listener whose filter obeys.
    #[track_caller]
    fn obeying(&self, args: &[&str]) -> Listener {
        let script = format!("NOTES={}; {OBEY}", self.notes_path());
        let args = [args, &["--", "sh", "-c", &script]].concat();
        Listener::start(&self.lab, &self.broker, &args)
    }

    fn notes_path(&self) -> String {
        self.lab.path("notes").display().to_string()
    }

    /// What the filters have noted: `begin ID`, `end ID`, in order.
    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.notes_path()).unwrap_or_default();
        notes.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn request(&self, target: &str, act: &str) -> Value {
        json!({"host": self.lab.node, "do": act, "backup_target": {"id": target}})
    }

    fn send(&self, id: &str, target: &str, act: &str) {
        self.peer.request(&self.lab.queue(), id, &self.request(target, act));
    }

    /// The answers to so many requests: their ids and what they say, in the order they came.
    #[track_caller]
    fn answers(&self, count: usize) -> Vec<(String, Value)> {
        let answer = |_| {
            let heard = self.peer.hear();
            let id = heard.properties.correlation_id().clone().unwrap_or_default();
            (id, heard.json())
        };
        (0..count).map(answer).collect()
    }

    #[track_caller]
    fn answer(&self) -> Value {
        self.answers(1).remove(0).1
    }

    #[track_caller]
    fn assert_empty(&self) {
        eventually("all messages are acknowledged", || {
            self.broker.queue(&self.lab.queue()).is_some_and(|queue| queue.messages == 0)
        });
    }
}

#[test]
fn a_message_becomes_a_line_and_its_answer_a_reply() {
    let office = Office::new();
    let queue = office.lab.queue();
    let _listener = Listener::start(&office.lab, &office.broker, &["--", "cat"]);
    let request = json!({"host": office.lab.node, "x": "ä\n1", "keystone_token": "t"});
    let pretty = serde_json::to_vec_pretty(&request).expect("plain data");
    office.peer.send(&queue, office.peer.properties("c-1"), &pretty);
    let reply = office.peer.hear();
    let line = reply.json();
    assert_eq!((&line["x"], &line["request_id"]), (&request["x"], &json!("c-1")));
    assert!(line["deadline"].as_f64().is_some_and(|s| s > 290.0), "{line}");
    let wanted = AmqpProperties::default()
        .with_content_type("application/json".into())
        .with_correlation_id("c-1".into());
    assert_eq!(reply.properties, wanted);
    office.assert_empty();
}

#[test]
fn without_a_reply_queue_it_is_done_and_acknowledged() {
    let office = Office::new();
    let _listener = office.obeying(&[]);
    let request = office.request("t1", "nothing").to_string();
    for properties in
        [AmqpProperties::default(), AmqpProperties::default().with_correlation_id("c".into())]
    {
        office.peer.send(&office.lab.queue(), properties, request.as_bytes());
    }
    eventually("both are done", || office.notes().len() == 4);
    office.assert_empty();
}

#[test]
fn an_answer_goes_only_to_a_reply_queue() {
    let office = Office::new();
    let others =
        Peer::server(&office.broker, &format!("dms.other-{}", office.lab.node), Box::new(|_| None));
    let listener = office.obeying(&[]);
    let request = office.request("t1", "nothing").to_string();
    for queue in [others.reply_queue.as_str(), "amq.direct", "x.amq.gen-y"] {
        let properties = office.peer.properties("bad").with_reply_to(queue.into());
        office.peer.send(&office.lab.queue(), properties, request.as_bytes());
    }
    listener.wait_for("refused a request", 3);
    office.send("good", "t1", "nothing");
    assert_eq!(office.answer()["success_msg"], "good");
    assert_eq!(office.notes(), ["begin good", "end good"], "a refused request was done");
    assert!(others.hear_within(Duration::from_millis(300)).is_none(), "another got our answer");
    drop(listener);
    let pattern = format!("dms.other-{}*", &office.lab.node[..3]);
    let _listener = office.obeying(&["--reply-to", &pattern]);
    let properties = office.peer.properties("ours").with_reply_to(others.reply_queue.clone());
    office.peer.send(&office.lab.queue(), properties, request.as_bytes());
    assert_eq!(others.hear().json()["success_msg"], "ours");
}

#[test]
fn what_is_no_request_for_this_node_is_answered_and_not_done() {
    let office = Office::new();
    let _listener = office.obeying(&[]);
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let bodies: [&[u8]; 7] =
        [b"", b"{", b"[1]", b"\xff", b"{\"host\":\"elsewhere\"}", b"{\"host\":1}", huge.as_bytes()];
    for body in bodies {
        office.peer.send(&office.lab.queue(), office.peer.properties("c"), body);
        let answer = office.answer();
        let status = (&answer["status"], &answer["error_code"]);
        assert_eq!(status, (&json!("error"), &json!("validation")), "{answer}");
    }
    assert_eq!(office.notes(), [""; 0]);
    office.assert_empty();
}

#[test]
fn requests_for_one_target_are_done_in_order_and_others_beside_them() {
    let office = Office::new();
    let _listener = office.obeying(&["--jobs", "3"]);
    for number in 0..5 {
        office.send(&format!("a{number}"), "a", "sleep 0.2");
    }
    office.send("b", "b", "nothing");
    let answers: Vec<String> = office.answers(6).into_iter().map(|(id, _)| id).collect();
    assert_eq!(answers, ["b", "a0", "a1", "a2", "a3", "a4"]);
    let mut notes = office.notes();
    notes.retain(|note| !note.ends_with('b'));
    let wanted: Vec<String> =
        (0..5).flat_map(|n| [format!("begin a{n}"), format!("end a{n}")]).collect();
    assert_eq!(notes, wanted);
}

#[test]
fn the_next_one_is_begun_as_soon_as_the_one_before_it_is_done() {
    let office = Office::new();
    let _listener = Listener::start(&office.lab, &office.broker, &["--", "cat"]);
    let start = Instant::now();
    for number in 0..50 {
        office.send(&number.to_string(), "t1", "nothing");
    }
    office.answers(50);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn no_more_filters_run_than_there_are_jobs() {
    let office = Office::new();
    let listener = office.obeying(&["--jobs", "2"]);
    for number in 0..6 {
        office.send(&format!("r{number}"), &format!("t{number}"), "sleep 0.1");
    }
    office.answers(6);
    let mut running = 0;
    for note in office.notes() {
        running += if note.starts_with("begin") { 1 } else { -1 };
        assert!((0..=2).contains(&running), "{:?}", office.notes());
    }
    assert_eq!(listener.children().len(), 2);
}

#[test]
fn a_filter_is_started_on_demand_and_ended_when_idle() {
    let office = Office::new();
    let listener = office.obeying(&["--idle", "0.3"]);
    assert_eq!(listener.children(), [0; 0], "a filter runs for nobody");
    for id in ["1", "2", "3"] {
        office.send(id, "t1", "nothing");
        office.answer();
        assert_eq!(listener.children().len(), 1, "one after the other, one filter does");
    }
    eventually("the idle filter has ended", || listener.children().is_empty());
    office.send("4", "t1", "nothing");
    assert_eq!(office.answer()["success_msg"], "4");
}

#[test]
fn a_filter_that_dies_or_babbles_is_replaced_and_its_request_answered() {
    let office = Office::new();
    let _listener = office.obeying(&["--jobs", "1"]);
    for act in ["die", "babble"] {
        office.send("lost", "t1", act);
        let answer = office.answer();
        assert_eq!(answer["error_code"], "internal", "{answer}");
        office.send("next", "t1", "nothing");
        assert_eq!(office.answer()["success_msg"], "next");
    }
    office.assert_empty();
}

#[test]
fn a_filter_that_hangs_is_ended_with_all_its_groups_and_its_request_answered() {
    let office = Office::new();
    // As in a node's pipeline, the inner filter is a group of its own.
    let script = "dms-lock --each -- sh -c 'read -r line; sleep 1000'";
    let args = ["--timeout", "1", "--", "sh", "-c", script];
    let _listener = Listener::start(&office.lab, &office.broker, &args);
    let start = Instant::now();
    office.send("hangs", "t1", "nothing");
    eventually("it hangs", || sleeps(&office.lab) == 1);
    let answer = office.answer();
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    eventually("no process of the filter is left", || sleeps(&office.lab) == 0);
    office.assert_empty();
}

fn sleeps(lab: &Lab) -> usize {
    lab.processes().iter().filter(|process| process.command == "sleep 1000").count()
}

#[test]
fn a_filter_that_answers_before_it_has_read_does_not_get_the_next_line_for_the_rest() {
    let office = Office::new();
    let script = "while :; do echo '{}'; head -c 70000 | tail -c 1 >/dev/null; sleep 0.1; done";
    let args = ["--jobs", "1", "--", "sh", "-c", script];
    let _listener = Listener::start(&office.lab, &office.broker, &args);
    let mut request = office.request("t1", "nothing");
    request["long"] = json!("x".repeat(500_000));
    for id in ["1", "2"] {
        office.peer.request(&office.lab.queue(), id, &request);
        assert_eq!(office.answer()["error_code"], "internal");
    }
}

#[test]
fn a_filter_that_has_ended_is_noticed_though_its_output_is_held_open() {
    let office = Office::new();
    let hold = "setsid sleep 30 </dev/null 2>/dev/null &";
    let script = format!("read -r x; {hold} echo '{{\"status\":\"success\"}}'; exit 0");
    let args = ["--timeout", "20", "--jobs", "1", "--", "sh", "-c", &script];
    let listener = Listener::start(&office.lab, &office.broker, &args);
    let start = Instant::now();
    for id in ["1", "2"] {
        office.send(id, "t1", "nothing");
        assert_eq!(office.answer()["status"], "success");
    }
    drop(listener);
    let script = format!("read -r x; {hold} exit 3");
    let args = ["--timeout", "20", "--jobs", "1", "--", "sh", "-c", &script];
    let _listener = Listener::start(&office.lab, &office.broker, &args);
    office.send("3", "t1", "nothing");
    assert_eq!(office.answer()["error_code"], "internal");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn an_answer_that_breaks_the_connection_does_not_leave_the_node_deaf() {
    // On a broker of its own: it does not take such a name well.
    let office = Office::on(Arc::new(Broker::start()));
    let listener = office.obeying(&[]);
    let request = office.request("t1", "nothing").to_string();
    // One that is done, and one that is refused.
    for body in [request.as_str(), "{"] {
        let poison =
            office.peer.properties("poison").with_reply_to("amq.rabbitmq.reply-to.g1h!!!.x".into());
        office.peer.send(&office.lab.queue(), poison, body.as_bytes());
    }
    listener.wait_for("gave up answering", 2);
    office.send("good", "t2", "nothing");
    assert_eq!(office.answer()["success_msg"], "good");
    assert_eq!(office.notes().iter().filter(|note| *note == "begin poison").count(), 1);
    office.assert_empty();
}

#[test]
fn requests_without_an_id_are_all_done_though_the_broker_marks_them_as_handed_out() {
    let mut office = Office::on(Arc::new(Broker::start()));
    let listener = office.obeying(&[]);
    let request = office.request("t1", "nothing").to_string();
    let send = |office: &Office, reply_to: Option<String>| {
        let mut properties = AmqpProperties::default().with_delivery_mode(2);
        if let Some(queue) = reply_to {
            properties = properties.with_reply_to(queue);
        }
        office.peer.send(&office.lab.queue(), properties, request.as_bytes());
    };
    // That of a client that is gone: nobody hears the answers, but they are sent.
    let gone = Some("amq.gen-gone".to_owned());
    send(&office, None);
    send(&office, gone.clone());
    eventually("two are done", || office.notes().len() == 4);
    office.assert_empty();
    // What is sent while the listener stands still waits in the queue.
    listener.signal(Signal::SIGSTOP);
    office.cut_power();
    for _ in 0..6 {
        send(&office, None);
        send(&office, gone.clone());
    }
    eventually("they wait", || {
        office.broker.queue(&office.lab.queue()).is_some_and(|queue| queue.messages == 12)
    });
    office.cut_power();
    listener.signal(Signal::SIGCONT);
    eventually("all are done", || office.notes().len() == 28);
    office.assert_empty();
    assert_eq!(office.notes().len(), 28, "one was done twice: {}", listener.log());
}

#[test]
fn a_target_that_hangs_keeps_no_other_waiting() {
    let office = Office::new();
    let _listener = office.obeying(&["--jobs", "2", "--timeout", "4"]);
    for number in 0..100 {
        office.send(&format!("h{number}"), "hung", "hang");
    }
    let start = Instant::now();
    for number in 0..50 {
        let sent = Instant::now();
        office.send(&format!("g{number}"), &format!("good-{}", number % 5), "nothing");
        assert_eq!(office.answer()["success_msg"], format!("g{number}"));
        let took = sent.elapsed();
        assert!(took < Duration::from_secs(1), "request {number} had to wait {took:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "the hung ones are answered already");
    // None of the hundred is lost either.
    let answers = office.answers(100);
    for (id, answer) in &answers {
        assert!(id.starts_with('h') && answer["error_code"] == "timeout", "{id}: {answer}");
    }
    office.assert_empty();
}

#[test]
fn too_many_requests_for_one_target_are_refused_rather_than_keeping_others_out() {
    let office = Office::new();
    let _listener = office.obeying(&["--jobs", "2", "--timeout", "20"]);
    for number in 0..1100 {
        office.send(&format!("h{number}"), "hung", "hang");
    }
    for (_, answer) in office.answers(76) {
        assert_eq!(answer["error_code"], "busy", "{answer}");
    }
    office.send("good", "good", "nothing");
    let answers = office.answers(2);
    let good = answers.iter().find(|(id, _)| id == "good");
    assert!(good.is_some_and(|(_, answer)| answer["status"] == "success"), "{answers:?}");
}

#[test]
fn a_request_whose_sender_has_given_up_is_not_done() {
    let office = Office::new();
    let queue = office.lab.queue();
    drop(office.obeying(&[]));
    let send = |id: &str, millis: &str| {
        let properties = office.peer.properties(id).with_expiration(millis.into());
        office.peer.send(
            &queue,
            properties,
            office.request("t1", "nothing").to_string().as_bytes(),
        );
    };
    send("late", "1");
    send("good", "60000");
    std::thread::sleep(Duration::from_millis(20));
    let _listener = office.obeying(&[]);
    assert_eq!(office.answer()["success_msg"], "good");
    assert_eq!(office.notes(), ["begin good", "end good"]);
    // Nor one that it would wait for longer than its sender.
    office.send("slow", "t1", "sleep 2");
    send("late", "500");
    let answers = office.answers(2);
    assert_eq!((answers[0].0.as_str(), &answers[0].1["error_code"]), ("late", &json!("timeout")));
}

#[test]
fn sigterm_finishes_what_runs_and_hands_back_the_rest() {
    let office = Office::new();
    let mut listener = office.obeying(&[]);
    for id in ["runs", "waits-1", "waits-2"] {
        office.send(id, "t1", "sleep 1");
    }
    eventually("the first one has begun", || office.notes() == ["begin runs"]);
    listener.signal(Signal::SIGTERM);
    listener.wait_for("stopping", 1);
    let mut check = office.lab.command("dms-call", &["--check"]);
    check.env("DMS_RABBITMQ_URL", office.broker.url()).stderr(std::process::Stdio::null());
    eventually("nobody listens any more", || check.status().is_ok_and(|s| s.code() == Some(1)));
    assert_eq!(office.notes(), ["begin runs"], "it listened until it ended");
    assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
    assert_eq!(office.answers(1)[0].0, "runs");
    let queue = office.broker.queue(&office.lab.queue()).expect("it is durable");
    assert_eq!((queue.messages, queue.unacknowledged, queue.consumers), (2, 0, 0));
    assert_eq!(office.notes(), ["begin runs", "end runs"], "one that waited was begun");
    let _listener = office.obeying(&[]);
    let ids: Vec<String> = office.answers(2).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["waits-1", "waits-2"]);
}

#[test]
fn what_comes_while_it_stops_is_handed_back_at_once() {
    let office = Office::new();
    let mut listener = office.obeying(&["--grace", "30"]);
    office.send("runs", "busy", "sleep 6");
    eventually("it has begun", || office.notes() == ["begin runs"]);
    for number in 0..400 {
        office.send(&number.to_string(), &format!("t{number}"), "nothing");
        if number == 20 {
            listener.signal(Signal::SIGTERM);
        }
    }
    listener.wait_for("stopping", 1);
    let second = office.obeying(&[]);
    let start = Instant::now();
    let others: Vec<String> = office.answers(400).into_iter().map(|(id, _)| id).collect();
    assert!(!others.contains(&"runs".to_owned()), "they had to wait for the first one's end");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(office.answers(1)[0].0, "runs");
    assert_eq!(listener.wait().code(), Some(0));
    drop(second);
    office.assert_empty();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        let office = Office::new();
        let mut listener = office.obeying(&[]);
        office.send("slow", "t1", "sleep 20");
        eventually("it has begun", || office.notes() == ["begin slow"]);
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
    let office = Office::new();
    let mut listener = office.obeying(&["--grace", "0.5"]);
    office.send("slow", "t1", "sleep 20");
    eventually("it has begun", || office.notes() == ["begin slow"]);
    let start = Instant::now();
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.wait().code(), Some(0), "{}", listener.log());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let queue = office.broker.queue(&office.lab.queue()).expect("it is durable");
    assert_eq!(queue.messages, 1, "the request is lost");
}

#[test]
fn the_service_manager_is_told() {
    let office = Office::new();
    let path = office.lab.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a fresh path");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut command = office.lab.command("dms-listen", &["--", "cat"]);
    command
        .env("DMS_RABBITMQ_URL", office.broker.url())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    let mut listener = Listener::spawn(&office.lab, &mut command);
    let hear = |words: &str| {
        let mut buffer = [0; 1000];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|why| panic!("{words}: {why}"));
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.contains(words) {
                return said;
            }
        }
    };
    hear("READY=1");
    hear(&format!("STATUS=serving {}", office.lab.queue()));
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    listener.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(listener.wait().success());
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
    let office = Office::new();
    let url = office.broker.url();
    let mut command = office.lab.command(
        "dms-listen",
        &["--", "sh", "-c", "read -r x; echo '{\"status\":\"success\"}'; sleep 1000"],
    );
    command.env("DMS_RABBITMQ_URL", &url).env("DMS_LOG_LEVEL", "TRACE");
    let listener = Listener::spawn(&office.lab, &mut command);
    listener.wait_for("serving", 1);
    let request = office.lab.request("mount", 1, "t1");
    let mut command = office.lab.command("dms-call", &["--timeout", "5"]);
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
