//! Requests that nobody should send, whole lines of them, to the node and through its pipeline: each
//! is answered, soon and with the right word, and nothing else happens. A token goes to the key manager
//! alone, no word becomes an option of a program, and nothing is touched outside the mount base.

mod lines;
mod mutate;
mod stage;
mod started;

use std::time::{Duration, Instant};

use dms_tests::is_long_run;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;

use crate::lines::{Line, corpus};
use crate::stage::{Stage, TOKEN};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(10);

/// What is so of every answer.
fn check_answer(answer: &Value, took: Duration) -> Result<(), String> {
    let text = answer["error_msg"].as_str().or(answer["success_msg"].as_str()).unwrap_or_default();
    let wrong = if took > SOON {
        "it took too long"
    } else if answer.to_string().contains(TOKEN) {
        "the token is in it"
    } else if text.is_empty() || text.len() > 1500 {
        "it says nothing, or too much"
    } else if answer["plan"] != Value::Null && answer["status"] == "success" {
        "nobody has planned that"
    } else {
        return Ok(());
    };
    Err(format!("{wrong} ({took:?}): {answer}"))
}

fn send_all(program: &'static str, is_piped: bool) {
    let mut stage = Stage::start(program);
    let mut corpus = corpus(&stage);
    if is_piped && !is_long_run() {
        // Of those that get as far as an act, which takes its time, some are enough here.
        let mut acts = 0..;
        corpus.retain(|line| line.code == "validation" || acts.next().is_some_and(|n| n % 3 == 0));
    }
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let mut wrong = Vec::new();
    for Line { text, code, piped } in &corpus {
        let start = Instant::now();
        let answer = stage.ask(text);
        let wanted = if is_piped { piped } else { code };
        let said = check_answer(&answer, start.elapsed());
        if said.is_err() || answer["error_code"] != *wanted {
            let shown = String::from_utf8_lossy(&text[..text.len().min(600)]);
            wrong.push(format!("{shown}\n{answer}, not {wanted}; {said:?}\n"));
        }
    }
    stage.end();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.concat());
}

#[test]
fn a_node_does_nothing_for_a_hostile_request_but_say_no() {
    send_all("dms-mount", false);
}

#[test]
fn a_pipeline_does_nothing_for_a_hostile_request_but_say_no() {
    send_all("dms-pipeline", true);
}

fn mutate_requests(program: &'static str, cases: u32) {
    let stage = std::cell::RefCell::new(Stage::start(program));
    let requests = mutate::requests(&stage.borrow());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&requests, |mutant| {
        let start = Instant::now();
        let answer = stage.borrow_mut().ask(&mutant.line());
        let said = check_answer(&answer, start.elapsed()).and_then(|()| mutate::judge(&answer));
        said.map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
    stage.into_inner().end();
}

#[test]
fn a_request_with_hostile_words_in_it_is_answered_by_a_node_and_does_no_harm() {
    mutate_requests("dms-mount", if is_long_run() { 20_000 } else { 600 });
}

#[test]
fn a_request_with_hostile_words_in_it_is_answered_by_a_pipeline_and_does_no_harm() {
    mutate_requests("dms-pipeline", if is_long_run() { 5_000 } else { 100 });
}
