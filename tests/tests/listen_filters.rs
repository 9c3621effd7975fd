//! Which of dms-listen's requests is done when, and by what filter.

use std::time::{Duration, Instant};

use dms_tests::{Lab, Listener, RemoteLab, eventually};
use serde_json::json;

#[test]
fn requests_for_one_target_are_done_in_order_and_others_beside_them() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&["--jobs", "3"]);
    for number in 0..5 {
        remote.send(&format!("a{number}"), "a", "sleep 0.2");
    }
    remote.send("b", "b", "nothing");
    let answers: Vec<String> = remote.answers(6).into_iter().map(|(id, _)| id).collect();
    assert_eq!(answers, ["b", "a0", "a1", "a2", "a3", "a4"]);
    let mut notes = remote.notes();
    notes.retain(|note| !note.ends_with('b'));
    let wanted: Vec<String> =
        (0..5).flat_map(|n| [format!("begin a{n}"), format!("end a{n}")]).collect();
    assert_eq!(notes, wanted);
}

#[test]
fn the_next_one_is_begun_as_soon_as_the_one_before_it_is_done() {
    let remote = RemoteLab::shared();
    let _listener = Listener::start(&remote.lab, &remote.broker, &["--", "cat"]);
    let start = Instant::now();
    for number in 0..50 {
        remote.send(&number.to_string(), "t1", "nothing");
    }
    remote.answers(50);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn no_more_filters_run_than_there_are_jobs() {
    let remote = RemoteLab::shared();
    let listener = remote.obeying(&["--jobs", "2"]);
    for number in 0..6 {
        remote.send(&format!("r{number}"), &format!("t{number}"), "sleep 0.1");
    }
    remote.answers(6);
    let mut running = 0;
    for note in remote.notes() {
        running += if note.starts_with("begin") { 1 } else { -1 };
        assert!((0..=2).contains(&running), "{:?}", remote.notes());
    }
    assert_eq!(listener.children().len(), 2);
}

#[test]
fn a_target_that_hangs_keeps_no_other_waiting() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&["--jobs", "2", "--timeout", "4"]);
    for number in 0..100 {
        remote.send(&format!("h{number}"), "hung", "hang");
    }
    let start = Instant::now();
    for number in 0..50 {
        let sent = Instant::now();
        remote.send(&format!("g{number}"), &format!("good-{}", number % 5), "nothing");
        assert_eq!(remote.answer()["success_msg"], format!("g{number}"));
        let took = sent.elapsed();
        assert!(took < Duration::from_secs(1), "request {number} had to wait {took:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "the hung ones are answered already");
    // None of the hundred is lost either.
    let answers = remote.answers(100);
    for (id, answer) in &answers {
        assert!(id.starts_with('h') && answer["error_code"] == "timeout", "{id}: {answer}");
    }
    remote.assert_empty();
}

#[test]
fn too_many_requests_for_one_target_are_refused_rather_than_keeping_others_out() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&["--jobs", "2", "--timeout", "20"]);
    for number in 0..1100 {
        remote.send(&format!("h{number}"), "hung", "hang");
    }
    for (_, answer) in remote.answers(76) {
        assert_eq!(answer["error_code"], "busy", "{answer}");
    }
    remote.send("good", "good", "nothing");
    let answers = remote.answers(2);
    let good = answers.iter().find(|(id, _)| id == "good");
    assert!(good.is_some_and(|(_, answer)| answer["status"] == "success"), "{answers:?}");
}

#[test]
fn a_filter_is_started_on_demand_and_ended_when_idle() {
    let remote = RemoteLab::shared();
    let listener = remote.obeying(&["--idle", "0.3"]);
    assert_eq!(listener.children(), [0; 0], "a filter runs for nobody");
    for id in ["1", "2", "3"] {
        remote.send(id, "t1", "nothing");
        remote.answer();
        assert_eq!(listener.children().len(), 1, "one after the other, one filter does");
    }
    eventually("the idle filter has ended", || listener.children().is_empty());
    remote.send("4", "t1", "nothing");
    assert_eq!(remote.answer()["success_msg"], "4");
}

#[test]
fn a_filter_that_dies_or_babbles_is_replaced_and_its_request_answered() {
    let remote = RemoteLab::shared();
    let _listener = remote.obeying(&["--jobs", "1"]);
    for act in ["die", "babble"] {
        remote.send("lost", "t1", act);
        let answer = remote.answer();
        assert_eq!(answer["error_code"], "internal", "{answer}");
        remote.send("next", "t1", "nothing");
        assert_eq!(remote.answer()["success_msg"], "next");
    }
    remote.assert_empty();
}

#[test]
fn a_filter_that_hangs_is_ended_with_all_its_groups_and_its_request_answered() {
    let remote = RemoteLab::shared();
    // As in a node's pipeline, the inner filter is a group of its own.
    let script = "dms-lock --each -- sh -c 'read -r line; sleep 1000'";
    let args = ["--timeout", "1", "--", "sh", "-c", script];
    let _listener = Listener::start(&remote.lab, &remote.broker, &args);
    let start = Instant::now();
    remote.send("hangs", "t1", "nothing");
    eventually("it hangs", || sleeps(&remote.lab) == 1);
    let answer = remote.answer();
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    eventually("no process of the filter is left", || sleeps(&remote.lab) == 0);
    remote.assert_empty();
}

fn sleeps(lab: &Lab) -> usize {
    lab.processes().iter().filter(|process| process.command == "sleep 1000").count()
}

#[test]
fn a_filter_that_answers_before_it_has_read_does_not_get_the_next_line_for_the_rest() {
    let remote = RemoteLab::shared();
    let script = "while :; do echo '{}'; head -c 70000 | tail -c 1 >/dev/null; sleep 0.1; done";
    let args = ["--jobs", "1", "--", "sh", "-c", script];
    let _listener = Listener::start(&remote.lab, &remote.broker, &args);
    let mut request = remote.request("t1", "nothing");
    request["long"] = json!("x".repeat(500_000));
    for id in ["1", "2"] {
        remote.peer.request(&remote.lab.queue(), id, &request);
        assert_eq!(remote.answer()["error_code"], "internal");
    }
}

#[test]
fn a_filter_that_has_ended_is_noticed_though_its_output_is_held_open() {
    let remote = RemoteLab::shared();
    let hold = "setsid sleep 30 </dev/null 2>/dev/null &";
    let script = format!("read -r x; {hold} echo '{{\"status\":\"success\"}}'; exit 0");
    let args = ["--timeout", "20", "--jobs", "1", "--", "sh", "-c", &script];
    let listener = Listener::start(&remote.lab, &remote.broker, &args);
    let start = Instant::now();
    for id in ["1", "2"] {
        remote.send(id, "t1", "nothing");
        assert_eq!(remote.answer()["status"], "success");
    }
    drop(listener);
    let script = format!("read -r x; {hold} exit 3");
    let args = ["--timeout", "20", "--jobs", "1", "--", "sh", "-c", &script];
    let _listener = Listener::start(&remote.lab, &remote.broker, &args);
    remote.send("3", "t1", "nothing");
    assert_eq!(remote.answer()["error_code"], "internal");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
