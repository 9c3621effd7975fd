//! Running a command to its end, and saying all about it when something is wrong.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where the programs under test are: `$DMS_BIN`, or the directory that this test was built in.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("DMS_BIN") {
        return PathBuf::from(dir);
    }
    // target/debug/deps/<this test>, or target/release/<this program>
    let exe = std::env::current_exe().expect("/proc is there");
    let is_test = |dir: &&Path| dir.file_name().is_some_and(|name| name == "deps");
    let beside = exe.parent().expect("cargo's layout");
    let dir = Some(beside).filter(is_test).and_then(Path::parent).unwrap_or(beside).to_owned();
    let built = [
        "dms-lock",
        "dms-ledger",
        "dms-mount",
        "dms-with",
        "dms-listen",
        "dms-call",
        "dms-test-s3",
    ];
    for program in built {
        let path = dir.join(program);
        assert!(path.exists(), "{} is not there: cargo build --workspace", path.display());
    }
    dir
}

/// Whether this is `make check-long`: the same tests, for longer.
pub fn is_long_run() -> bool {
    std::env::var_os("DMS_TEST_LONG").is_some()
}

/// How a command ended, and what it said.
pub struct Run {
    what: String,
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Run {
    /// Fails the test unless the exit code is this.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Every line of stdout as JSON.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line:?}\n{self}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The one line of stdout as JSON.
    #[track_caller]
    pub fn line(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "one line was expected\n{self}");
        lines.remove(0)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Run { what, code, stdout, stderr } = self;
        write!(f, "{what}\nexit code {code}\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
    }
}

/// Runs a command with this input, to its end.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Run {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{what}: {why}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // One that ends without reading it all is free to.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it was started");
    feeder.join().expect("it does not panic");
    Run {
        what,
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something is so, 30 s at most.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
