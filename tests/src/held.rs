//! Processes that a test keeps running and talks to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A line filter that is kept running: a question, an answer.
pub struct Filter {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Filter {
    /// Starts it; its log is not looked at.
    pub fn start(command: &mut Command) -> Filter {
        Filter::spawn(command.stderr(Stdio::null()))
    }

    /// The same; its log is in the test's output.
    pub fn start_heard(command: &mut Command) -> Filter {
        Filter::spawn(command.stderr(Stdio::inherit()))
    }

    fn spawn(command: &mut Command) -> Filter {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is there");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Filter { child, stdin, stdout }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a request, without waiting for the answer.
    #[track_caller]
    pub fn tell(&mut self, request: &Value) {
        self.stdin.write_all(format!("{request}\n").as_bytes()).expect("it reads");
    }

    /// Sends a line that need not be a request.
    #[track_caller]
    pub fn tell_line(&mut self, line: &[u8]) {
        self.stdin.write_all(&[line, b"\n"].concat()).expect("it reads");
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        self.answer_if_any().expect("it answers")
    }

    /// The next answer; `None` if it ends without one.
    #[track_caller]
    pub fn answer_if_any(&mut self) -> Option<Value> {
        let line = self.line();
        let parse = || serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line:?}"));
        (!line.is_empty()).then(parse)
    }

    /// The next line of one that need not speak JSON; empty at the end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it can be read");
        line.trim_end().to_owned()
    }

    /// Sends a request and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Value {
        self.tell(request);
        self.answer()
    }

    /// Ends its input, and waits for its end.
    pub fn end(mut self) {
        drop(self.stdin);
        self.child.wait().expect("it is ours");
    }
}

/// A command that has said "held", and goes on until it is released.
pub struct Held {
    child: Child,
}

impl Held {
    /// The arguments for a shell that says "held" and waits to be released.
    pub const SHELL: [&str; 3] = ["sh", "-c", "echo held; read x"];

    /// Starts it and waits for the word.
    #[track_caller]
    pub fn start(command: &mut Command) -> Held {
        Held::start_with(command, "")
    }

    /// Starts it, says this to it, and waits for the word.
    #[track_caller]
    pub fn start_with(command: &mut Command, words: &str) -> Held {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is there");
        let stdin = child.stdin.as_mut().expect("it is piped");
        stdin.write_all(words.as_bytes()).expect("it reads");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says so");
        assert_eq!(line, "held\n");
        Held { child }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Kills it, and leaves its input open for the children that it had: they end when the
    /// result is dropped.
    pub fn kill(mut self) -> Option<ChildStdin> {
        let stdin = self.child.stdin.take();
        self.child.kill().and_then(|()| self.child.wait().map(|_| ())).expect("it is ours");
        stdin
    }

    /// Ends its input, and waits for its end.
    pub fn release(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it is ours");
    }
}
