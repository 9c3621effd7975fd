//! The system calls by which a program touches what outlives it, and its end at any of them.
//!
//! strace sends the signal when the call is entered, and the call is not carried out: so an end at
//! one call is an end after the one before it.

use std::fmt;
use std::fs;
use std::path::Path;

/// The calls that are looked at. Others only read, or are about the process itself.
const CALLS: &str = "mkdir,openat,unlink,fchown,fcntl,ftruncate,mmap,read,write,pwrite64,fsync,\
                     fdatasync,close,connect,sendto,recvfrom,shutdown,exit_group";

/// One call of a program, and what it is about.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// Its name.
    pub call: String,
    /// How many calls of this name there were up to this one: so strace counts them.
    nth: u32,
    /// The file, or what it is on the other side of a pipe or socket.
    pub object: String,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.object)
    }
}

/// The words before a command, for a shell, that have its calls written to `log`.
pub fn traced(log: &Path) -> String {
    format!("strace -f -y -s 60 -o {} -e trace={CALLS}", log.display())
}

/// The words that also end it, by SIGKILL, at this call.
pub fn killed_at(log: &Path, boundary: &Boundary) -> String {
    let Boundary { call, nth, .. } = boundary;
    format!("{} -e inject={call}:signal=SIGKILL:when={nth}", traced(log))
}

/// Whether it was ended so.
#[track_caller]
pub fn was_killed(log: &Path) -> bool {
    let text = fs::read_to_string(log);
    text.expect("strace has written it").contains("+++ killed by SIGKILL +++")
}

/// The calls in the log that are about files below `root`, pipes and sockets, in their order.
#[track_caller]
pub fn boundaries(log: &Path, root: &Path) -> Vec<Boundary> {
    let text = fs::read_to_string(log).expect("strace has written it");
    let mut found: Vec<Boundary> = Vec::new();
    let mut counts = std::collections::HashMap::<String, u32>::new();
    for line in text.lines() {
        // PID NAME(ARGUMENTS) = RESULT
        let Some((call, rest)) =
            line.split_once(' ').and_then(|(_, line)| line.trim_start().split_once('('))
        else {
            continue;
        };
        if !CALLS.split(',').any(|name| name == call) {
            continue;
        }
        let nth = counts.entry(call.to_owned()).or_default();
        *nth += 1;
        if let Some(object) = object(call, rest, &root.display().to_string()) {
            found.push(Boundary { call: call.to_owned(), nth: *nth, object });
        }
    }
    assert!(!found.is_empty(), "strace has seen nothing:\n{text}");
    found
}

/// What a call is about; `None` if that is nobody else's business.
fn object(call: &str, rest: &str, root: &str) -> Option<String> {
    if call == "exit_group" {
        return Some(String::new());
    }
    if let Some((_, path)) = rest.split_once(root) {
        let end = path.find(['"', '>']).unwrap_or(path.len());
        let path = path[..end].trim_start_matches('/');
        return Some(if path.contains("life/") { "life lock" } else { path }.to_owned());
    }
    let fd = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0)];
    let is_open = |kind: &str| rest[fd.len()..].starts_with(kind);
    match (call, fd) {
        ("write", "2") => Some("log".into()),
        ("write", "1") => Some("output".into()),
        ("read", _) if is_open("<pipe:") => Some("input".into()),
        _ if is_open("<socket:") || is_open("<TCP:") => Some(spoken(call, rest).into()),
        _ => None,
    }
}

/// What is said to a server, or heard.
fn spoken(call: &str, rest: &str) -> &'static str {
    // In this order: a setting of the session has another of the words in it.
    const WORDS: [&str; 8] = [
        "SET SESSION",
        "START TRANSACTION",
        "COMMIT",
        "ROLLBACK",
        "CREATE",
        "INSERT",
        "UPDATE",
        "SELECT",
    ];
    match call {
        "recvfrom" | "read" => "the server's answer",
        // A statement is named once, and then carried out by its number.
        "sendto" | "write" => {
            WORDS.into_iter().find(|word| rest.contains(word)).unwrap_or("by number")
        }
        _ => "the server",
    }
}

/// The calls in a row, those that follow each other taken together.
pub fn summary(boundaries: &[Boundary]) -> String {
    let mut parts: Vec<(String, u32)> = Vec::new();
    for boundary in boundaries {
        let text = boundary.to_string();
        match parts.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => parts.push((text, 1)),
        }
    }
    let parts = parts.iter().map(|(text, count)| match count {
        1 => text.trim().to_owned(),
        _ => format!("{text} x{count}"),
    });
    parts.collect::<Vec<_>>().join(", ")
}
