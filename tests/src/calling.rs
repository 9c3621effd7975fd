//! Callers, and a listener that answers them.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::held::Filter;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::run::{Run, run};

/// A filter that answers with the request's own words, once it has them.
pub const ANSWER: [&str; 3] = [
    "sh",
    "-c",
    r#"while read -r line; do
        case $line in *'"do":"hang"'*) sleep 3 ;; esac
        word=$(printf %s "$line" | sed 's/.*"word":"\([^"]*\)".*/\1/')
        echo '{"status":"success","error_msg":null,"success_msg":"'"$word"'"}'
    done"#,
];

/// A request for this node, with a word for the answer.
pub fn request(host: &str, word: &str) -> Value {
    json!({"host": host, "action": "mount", "word": word, "backup_target": {"id": "t1"}})
}

/// Runs dms-call with these requests, to its end.
#[track_caller]
pub fn call(lab: &Lab, url: &str, args: &[&str], requests: &[Value]) -> Run {
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let mut command = lab.command("dms-call", args);
    run(command.env("DMS_RABBITMQ_URL", url), lines.as_bytes())
}

/// A listener with that filter.
#[track_caller]
pub fn answering(lab: &Lab, broker: &Broker) -> Listener {
    Listener::start(lab, broker, &[&["--jobs", "1", "--"], &ANSWER[..]].concat())
}

/// A caller that is kept running.
pub fn caller(lab: &Lab, url: &str, args: &[&str]) -> Filter {
    Filter::start(lab.command("dms-call", args).env("DMS_RABBITMQ_URL", url))
}
