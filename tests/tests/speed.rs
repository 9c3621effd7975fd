//! How quick and how frugal the listener is, beside what the broker itself takes, in one run.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use amiquip::AmqpProperties;
use dms_tests::{Broker, Lab, Listener, Peer, eventually, is_long_run};
use serde_json::json;

/// A process's own share of memory, in KiB.
fn pss(pid: i32) -> u64 {
    memory(pid, "Pss:")
}

/// A line of smaps_rollup, in KiB.
fn memory(pid: i32, what: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = rollup.lines().find(|line| line.starts_with(what)).expect("the kernel tells");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// The processor time that it has had, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("proc(5)").1.split(' ').collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// How often its threads were woken.
fn wakes(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|status| {
            let line = status.lines().find(|line| line.starts_with("voluntary"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The middle one of the round trips to this queue.
fn round_trips(peer: &Peer, queue: &str, request: &serde_json::Value) -> Duration {
    let mut times: Vec<Duration> = (0..200)
        .map(|number| {
            let start = Instant::now();
            peer.ask(queue, &number.to_string(), request);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_round_trip_takes_at_most_twice_what_the_broker_takes() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let bare = format!("bare.{}", lab.node);
    let _server = Peer::server(&broker, &bare, Box::new(|heard| Some(heard.body.clone())));
    let _listener = Listener::start(&lab, &broker, &["--", "cat"]);
    let peer = Peer::client(&broker);
    let request = json!({"host": lab.node, "action": "mount", "keystone_token": "x".repeat(200),
        "backup_target": {"id": "t1", "type": "s3"}});
    // In turns, so that whatever else the machine does, it does to both.
    let mut pairs: Vec<(Duration, Duration)> = (0..12)
        .map(|_| (round_trips(&peer, &bare, &request), round_trips(&peer, &lab.queue(), &request)))
        .collect();
    pairs.sort_unstable_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
    let (ours, theirs) = (pairs[pairs.len() / 2].1, pairs[pairs.len() / 2].0);
    tell(&format!(
        "round trip: broker {theirs:?}, listener {ours:?}: {:.2} times",
        ratio((theirs, ours))
    ));
    assert!(ours < theirs * 2, "{pairs:?}");
}

fn ratio((theirs, ours): (Duration, Duration)) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

#[test]
fn an_idle_listener_costs_nothing() {
    let (lab, broker) = (Lab::unique(), Broker::shared());
    let listener = Listener::start(&lab, &broker, &["--idle", "0.1", "--", "cat"]);
    let peer = Peer::client(&broker);
    peer.ask(&lab.queue(), "1", &json!({"backup_target": {"id": "t1"}}));
    eventually("the filter is ended", || listener.children().is_empty());
    let (memory, before, woken) =
        (pss(listener.pid()), ticks(listener.pid()), wakes(listener.pid()));
    std::thread::sleep(Duration::from_secs(5));
    let (used, woken) = (ticks(listener.pid()) - before, wakes(listener.pid()) - woken);
    tell(&format!("idle for 5 s: {memory} KiB, {used} ticks, woken {woken} times"));
    assert!(memory <= 8 << 10, "{memory} KiB");
    assert!(used <= 1 && woken <= 10, "{used} ticks, woken {woken} times");
}

#[test]
fn it_does_not_grow() {
    let (lab, broker) = (Lab::unique(), Broker::start());
    let total = if is_long_run() { 1_000_000 } else { 120_000 };
    let listener = Listener::start(&lab, &broker, &["--jobs", "2", "--", "cat"]);
    let peer = Peer::client(&broker);
    let start = Instant::now();
    let mut sizes = Vec::new();
    for number in 0..total {
        let body = format!(r#"{{"n":{number},"backup_target":{{"id":"t{}"}}}}"#, number % 20);
        let properties = AmqpProperties::default().with_correlation_id(number.to_string());
        peer.send(
            &lab.queue(),
            properties.with_reply_to(peer.reply_queue.clone()),
            body.as_bytes(),
        );
        // Not more on its way than the listener takes at once.
        if number >= 500 {
            peer.hear();
        }
        if number % (total / 10) == total / 10 - 1 {
            // Not its share: that depends on who else runs.
            sizes.push(memory(listener.pid(), "Private_Dirty:"));
        }
    }
    (0..500).for_each(|_| drop(peer.hear()));
    let rate = f64::from(total) / start.elapsed().as_secs_f64();
    tell(&format!("{total} messages, {rate:.0} a second; KiB: {sizes:?}"));
    // What it needs at all, it has by then, but for one more heap or buffer, which may come late. What
    // leaks grows all the time: eight bytes for each message would be 94 KiB a tenth.
    let mut steps: Vec<u64> =
        sizes[4..].windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    steps.sort_unstable();
    assert!(steps[..4].iter().sum::<u64>() <= 192, "it grows: {sizes:?}");
    eventually("all are acknowledged", || {
        broker.queue(&lab.queue()).is_some_and(|queue| queue.messages == 0)
    });
}

#[test]
fn two_hundred_nodes_are_back_after_a_restart_of_their_broker_and_do_not_come_at_once() {
    const NODES: usize = 200;
    let (lab, mut broker) = (Lab::unique(), Broker::start());
    let url = broker.url();
    let listen = |number: usize| {
        let mut command = lab.command("dms-listen", &["--", "cat"]);
        let node = format!("{}-{number}", lab.node);
        Listener::spawn(&lab, command.env("DMS_RABBITMQ_URL", &url).env("DMS_NODE_ID", node))
    };
    let listeners: Vec<Listener> = (0..NODES).map(listen).collect();
    let all_serve = |broker: &Broker, round: usize| {
        for listener in &listeners {
            listener.wait_for("serving", round);
        }
        let peer = Peer::client(broker);
        for number in 0..NODES {
            let queue = format!("dms.{}-{number}", lab.node);
            peer.ask(&queue, "id", &json!({"round": round, "number": number}));
        }
    };
    all_serve(&broker, 1);
    let memory: u64 = listeners.iter().map(|listener| pss(listener.pid())).sum();
    broker.stop();
    std::thread::sleep(Duration::from_secs(3));
    broker.start_again();
    let start = Instant::now();
    all_serve(&broker, 2);
    let back = start.elapsed();
    let peak = busiest_second(&broker.log());
    tell(&format!(
        "{NODES} listeners, {} MiB together, all back in {back:?}; most logins in a second: {peak}",
        memory >> 10
    ));
    assert!(back < Duration::from_secs(30), "{back:?}");
    assert!(peak <= NODES / 2, "{peak} came at once");
}

/// How many connections were accepted in the busiest second after the last start of the broker.
fn busiest_second(log: &str) -> usize {
    let after = log.rfind("Starting RabbitMQ").unwrap_or_default();
    let mut seconds = std::collections::BTreeMap::<&str, usize>::new();
    for line in log[after..].lines().filter(|line| line.contains("accepting AMQP connection")) {
        *seconds.entry(line.get(..19).unwrap_or_default()).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or_default()
}
