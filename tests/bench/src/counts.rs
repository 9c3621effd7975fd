//! Instructions, as callgrind counts them: of each stage for one request, and of each tool's start.
//! They are the same on a busy machine, so they are held against those that are on record.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use dms_tests::{Lab, bin_dir};

use crate::stage::{mount_targets, node, request};
use crate::table::{Limit, Table, say};

/// The counts on record, a line each: name and number.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");

/// With this in the environment, they are written down anew.
const WRITE: &str = "DMS_WRITE_COUNTS";

/// How many requests more the longer run has.
const REQUESTS: usize = 20;

/// What differs between two runs of one program, and a little for another compiler.
const LIMIT: Limit = Limit::AtMost(1.1);

#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(table: &mut Table) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("no instructions are counted: valgrind is not installed (apt-get install valgrind)");
        return;
    }
    let counts = count();
    if std::env::var_os(WRITE).is_some() {
        let lines: String = counts.iter().map(|(name, n)| format!("{name}: {n}\n")).collect();
        fs::write(RECORD, lines).unwrap_or_else(|why| panic!("{RECORD}: {why}"));
    }
    let record = fs::read_to_string(RECORD).unwrap_or_default();
    let record: BTreeMap<&str, f64> = record
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect();
    for (name, &count) in &counts {
        let before = record.get(name.as_str()).copied().unwrap_or(f64::NAN);
        let (now, before) = (count as f64 / 1e3, before / 1e3);
        table.figures(name, (now, before), "thousand", "instructions on record", LIMIT);
    }
}

fn count() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for tool in ["dms-lock", "dms-ledger", "dms-mount", "dms-listen"] {
        let dir = tempdir();
        let mut command = valgrind(&dir);
        command.arg(bin_dir().join(tool)).arg("--version");
        let started: u64 = run(command, "", &dir).values().sum();
        counts.insert(format!("{tool}: start"), started);
    }
    let lab = node(None);
    mount_targets(&lab, 1);
    // The first line of a run finds everything cold.
    let few = pipeline(&lab, 2);
    let many = pipeline(&lab, 2 + 2 * REQUESTS);
    for (stage, many) in many {
        let more = many.saturating_sub(few.get(&stage).copied().unwrap_or_default());
        counts.insert(format!("{stage}: mount and unmount"), more / REQUESTS as u64);
    }
    counts
}

/// A run with so many requests: mounts and unmounts of a job on a mounted target.
fn pipeline(lab: &Lab, lines: usize) -> BTreeMap<String, u64> {
    let requests = ["mount", "unmount"].map(|action| request(lab, action, 2, "target-0"));
    let input: String = (0..lines).map(|line| format!("{}\n", requests[line % 2])).collect();
    let dir = tempdir();
    let mut command = valgrind(&dir);
    lab.environment(&mut command);
    // Not dms-mount: it starts itself by /proc/self/exe, which is valgrind there.
    let counted = format!(
        "valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file={}/%p",
        dir.display()
    );
    let filter = format!("{counted} dms-ledger plan | dms-mount | {counted} dms-ledger commit");
    command.arg(bin_dir().join("dms-lock")).args(["--each", "--", "sh", "-c", &filter]);
    run(command, &input, &dir)
}

fn tempdir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("dms-bench-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("room for it");
    dir
}

fn valgrind(dir: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--log-file={}/%p", dir.display()));
    command
}

/// Runs it, and adds up what each stage has taken.
fn run(mut command: Command, input: &str, dir: &Path) -> BTreeMap<String, u64> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    // One that reads no input is no failure.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let end = child.wait().expect("it is ours");
    assert!(end.success(), "{command:?}: {end}");
    let mut counts = BTreeMap::new();
    for log in fs::read_dir(dir).expect("it was made").flatten() {
        let text = fs::read_to_string(log.path()).unwrap_or_default();
        let behind = |word: &str| Some(text.split_once(word)?.1.lines().next()?.trim().to_owned());
        let (Some(command), Some(count)) = (behind("Command:"), behind("Collected :")) else {
            continue;
        };
        let words: Vec<&str> = command.split(' ').filter_map(|w| w.rsplit('/').next()).collect();
        let stage = match words[..] {
            ["dms-ledger", word @ ("plan" | "commit"), ..] => format!("dms-ledger {word}"),
            [word, ..] => word.to_owned(),
            [] => continue,
        };
        *counts.entry(stage).or_default() += count.parse::<u64>().unwrap_or_default();
    }
    let _ = fs::remove_dir_all(dir);
    counts
}
