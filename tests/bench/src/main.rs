//! How quick and how frugal the tools are, beside what they are compared with, in one run on one
//! machine. See README.md beside this crate for what each figure means.
//!
//! The harness is its own: what is compared are processes, brokers and mounts, in turns, and not
//! functions, which is all that the usual harness knows to call.

mod consumer;
mod counts;
mod floor;
mod growth;
mod idle;
mod locks;
mod memory;
mod mounts;
mod oneshot;
mod request;
mod sample;
mod stage;
mod table;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use dms_tests::bin_dir;
use serde_json::{Value, json};

use crate::table::{Table, say};

/// One comparison: its name, and what measures it.
type Part = (&'static str, fn(&mut Table));

const PARTS: [Part; 7] = [
    ("locks", locks::measure),
    ("request", request::measure),
    ("oneshot", oneshot::measure),
    ("mounts", mounts::measure),
    ("growth", growth::measure),
    ("idle", idle::measure),
    ("counts", counts::measure),
];

/// `dms-bench [PART...]`: measures all, or only these. The two other forms are started by itself.
fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(memory::WORD) => return memory::main(&args[1..]),
        Some(consumer::WORD) => return consumer::main(&args[1..]),
        _ => {}
    }
    if let Some(unknown) = args.iter().find(|&arg| PARTS.iter().all(|(name, _)| name != arg)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        say(&format!("dms-bench: fatal: there is no part {unknown}, only {}", names.join(", ")));
        return ExitCode::from(100);
    }
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            say(&format!("-- {name}"));
            measure(&mut table);
        }
    }
    table.print();
    let path = json_path();
    match table.write(&path, &machine()) {
        Ok(()) => {
            say(&format!("written to {}", path.display()));
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("dms-bench: fatal: unable to write {}: {why}", path.display()));
            ExitCode::from(111)
        }
    }
}

/// Beside the directory of the programs, in which cargo puts things of its own.
fn json_path() -> PathBuf {
    let given = env::var_os("DMS_BENCH_JSON").map(PathBuf::from);
    given.unwrap_or_else(|| bin_dir().with_file_name("bench.json"))
}

/// What was measured on.
fn machine() -> Value {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(':').next().unwrap_or_default().trim().to_owned()
    };
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).ok()
    };
    json!({
        "date": said("date", &["-u", "+%Y-%m-%d %H:%M"]),
        "kernel": said("uname", &["-sr"]),
        "processor": line("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": line("/proc/meminfo", "MemTotal"),
        "mariadb": said("mariadbd", &["--version"]),
        "s3fs": said("s3fs", &["--version"]).and_then(|text| Some(text.lines().next()?.to_owned())),
    })
}
