//! One request, by one of the ways there are, to its end: what was asked, what was told, and when.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::clock::now;
use crate::target;
use crate::world::World;

/// The ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// dms-call, from elsewhere: the ledger is at the node.
    Call,
    /// dms-pipeline, on the node.
    Pipe,
    /// The ledger where one asks from, dms-call as the middle stage.
    Client,
}

impl Way {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Way::Call => "dms-call",
            Way::Pipe => "dms-pipeline",
            Way::Client => "plan, dms-call, commit",
        }
    }
}

/// The pipeline of [`Way::Client`], which also keeps what goes to the node, in a file.
pub(crate) fn client_pipeline(keep: &str) -> String {
    let torture = crate::built().join("torture");
    format!(
        "dms-ledger plan | {} keep {keep} | dms-call --wait-for-listener | dms-ledger commit",
        torture.display()
    )
}

/// What is asked, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) way: Way,
    pub(crate) node: usize,
    pub(crate) target: String,
    pub(crate) job: i32,
    pub(crate) action: &'static str,
    pub(crate) id: String,
    /// Which hold it begins or ends.
    pub(crate) hold: String,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) asked: f64,
    pub(crate) at: f64,
    /// `success`, an error's code, or `none`.
    pub(crate) word: String,
    /// Nothing is mounted any more.
    pub(crate) has_unmounted: bool,
}

impl Told {
    pub(crate) fn is_success(&self) -> bool {
        self.word == "success"
    }

    /// Nobody knows whether it was done.
    pub(crate) fn is_unknown(&self) -> bool {
        ["timeout", "broker", "internal", "database", "none"].contains(&&*self.word)
    }
}

/// How long a request may take, in seconds, beside what it was stopped for.
pub(crate) fn bound(way: Way, timeout: f64) -> f64 {
    // A tool that is started on a machine that is busy takes a moment.
    const SLACK: f64 = 40.0;
    match way {
        // The caller's time-out is that of all that it does.
        Way::Call => timeout + SLACK,
        // Its turn at the lock, its turn in the ledger, the act, and the record; each has as long as
        // a request may take.
        Way::Pipe | Way::Client => 4.0 * timeout + SLACK,
    }
}

impl World {
    /// The line of a request.
    pub(crate) fn line(&self, question: &Question) -> String {
        let node = &self.nodes[question.node];
        let request = json!({
            "request_id": question.id, "context": {"user_id": "user-1"},
            "keystone_token": crate::node::TOKEN, "job": {"jobid": question.job},
            "host": node.name, "action": question.action,
            "backup_target": target::describe(node, &question.target),
        });
        format!("{request}\n")
    }

    fn command(&self, question: &Question) -> Command {
        let timeout = self.hub.options.timeout.to_string();
        match question.way {
            Way::Call => {
                let args = ["--wait-for-listener", "--timeout", &timeout];
                self.controller.command("dms-call", &args)
            }
            Way::Pipe => self.nodes[question.node].command::<&str>("dms-pipeline", &[]),
            Way::Client => {
                let keep = self.plan_file(&question.id);
                let script = client_pipeline(&keep);
                self.controller.command("dms-lock", &["--each", "--", "sh", "-c", &script])
            }
        }
    }

    /// Where the plan of a request is kept, to be sent again.
    pub(crate) fn plan_file(&self, id: &str) -> String {
        self.controller.path("plans").join(id).display().to_string()
    }

    /// Where the words of those who ask are kept.
    pub(crate) fn words_file(&self, id: &str) -> std::path::PathBuf {
        self.controller.path("words").join(id)
    }

    /// Asks, and waits for the answer as long as there may be one.
    pub(crate) fn ask(&self, question: &Question) -> Told {
        let node = &self.nodes[question.node];
        let bound = bound(question.way, self.hub.options.timeout);
        let asked = self.hub.history.note(
            "ask",
            json!({"id": question.id, "hold": question.hold, "job": question.job,
                "node": node.name, "target": question.target, "action": question.action,
                "way": question.way.word(), "bound": bound}),
        );
        let mut command = self.command(question);
        let end = self.run(&mut command, &self.line(question), &question.id, bound);
        let word = word(&end.answer);
        let at = self.hub.history.note(
            "told",
            json!({"id": question.id, "hold": question.hold, "job": question.job,
                "node": node.name, "target": question.target, "action": question.action,
                "word": word, "seconds": now() - asked, "answer": end.answer, "late": end.is_late,
                "how": end.how(), "signalled": end.was_killed()}),
        );
        Told { asked, at, word, has_unmounted: end.answer["unmounted"] == true }
    }

    /// Runs a command with this line as its input; its words go to the request's file.
    pub(crate) fn run(&self, command: &mut Command, line: &str, id: &str, bound: f64) -> End {
        let words = File::options().create(true).append(true).open(self.words_file(id));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(words.expect("room for it"));
        let mut child = command.spawn().expect("it is this program");
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that was killed does not read.
        let _ = stdin.write_all(line.as_bytes());
        drop(stdin);
        let mut stdout = child.stdout.take().expect("it is piped");
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            let _ = said.send(text);
        });
        let heard = match self.patiently(&heard, bound) {
            Some(text) => (text, false),
            None => {
                end_tree(&child);
                (heard.recv_timeout(Duration::from_secs(20)).unwrap_or_default(), true)
            }
        };
        let status = child.wait().ok();
        let answer = serde_json::from_str(heard.0.trim()).unwrap_or(Value::Null);
        End { answer, is_late: heard.1, status }
    }

    /// Waits within the bound; what somebody was stopped for does not count.
    fn patiently(&self, heard: &mpsc::Receiver<String>, bound: f64) -> Option<String> {
        let began = now();
        let stalled = self.stalled();
        loop {
            if let Ok(text) = heard.recv_timeout(Duration::from_millis(100)) {
                return Some(text);
            }
            if now() - began > bound + (self.stalled() - stalled) {
                return None;
            }
        }
    }
}

/// How a command that asked has ended.
pub(crate) struct End {
    pub(crate) answer: Value,
    is_late: bool,
    status: Option<ExitStatus>,
}

impl End {
    pub(crate) fn how(&self) -> String {
        self.status.map_or_else(String::new, |status| status.to_string())
    }

    /// Who enters a node ends as what it has started does.
    fn was_killed(&self) -> bool {
        let killed = |status: ExitStatus| status.signal().is_some() || status.code() == Some(137);
        self.status.is_some_and(killed)
    }
}

/// "success", an error's code, or "none".
pub(crate) fn word(answer: &Value) -> String {
    match (answer["status"].as_str(), answer["error_code"].as_str()) {
        (Some("success"), _) => "success".to_owned(),
        (Some(_), Some(code)) => code.to_owned(),
        (Some(_), None) => "error".to_owned(),
        (None, _) => "none".to_owned(),
    }
}

/// Ends it, with what it has started.
pub(crate) fn end_tree(child: &Child) {
    let mut pids = vec![child.id().cast_signed()];
    let mut next = 0;
    while next < pids.len() {
        let pid = pids[next];
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        next += 1;
    }
    for pid in pids.into_iter().rev() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
