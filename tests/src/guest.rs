//! A guest: a kernel of its own in user-mode Linux, on the host's root, which it can read only.
//!
//! For what the host's kernel may lack. It needs no virtualisation, no image and no network.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::run::bin_dir;

/// What a guest has printed, scenario by scenario.
pub struct Guest {
    output: String,
}

/// What a guest may take of its host.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// It is killed then.
    pub seconds: u32,
    /// Its memory, in MiB.
    pub memory: u32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { seconds: 180, memory: 320 }
    }
}

/// One scenario: its answers, and what was seen.
pub struct Scenario<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl Guest {
    /// Boots a guest whose first process is this script of `tests/guest`, and waits for its end. The
    /// script finds these variables, and where the tools are.
    pub fn run(script: &str, variables: &[(&str, &str)]) -> Guest {
        Guest::run_within(Bounds::default(), script, variables)
    }

    /// The same, within other bounds.
    pub fn run_within(bounds: Bounds, script: &str, variables: &[(&str, &str)]) -> Guest {
        let guest = Guest { output: boot(bounds, script, variables) };
        // It goes through all of them, whatever comes of each.
        guest.scenario("end");
        guest
    }

    /// What came of a scenario.
    #[track_caller]
    pub fn scenario<'a>(&'a self, name: &'a str) -> Scenario<'a> {
        let mut lines = self.output.lines();
        let found = lines.any(|line| line.strip_prefix("== ") == Some(name));
        assert!(found, "the guest has not come to {name}:\n{}", self.output);
        Scenario { name, lines: lines.take_while(|line| !line.starts_with("== ")).collect() }
    }
}

/// Boots it, and returns what it has printed when it has ended.
fn boot(bounds: Bounds, script: &str, variables: &[(&str, &str)]) -> String {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory =
        std::env::temp_dir().join(format!("dms-guest-{}-{:?}", std::process::id(), Instant::now()));
    let directory = directory.display().to_string().replace([' ', '{', '}', ':', ','], "");
    std::fs::create_dir(&directory).expect("a temporary directory");
    let shim = format!("{directory}/xstate.so");
    let source = home.join("guest/xstate.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o", &shim]).arg(source);
    assert!(cc.status().expect("cc is there").success(), "{shim} is not made");
    let mut guest = Command::new("timeout");
    guest.env("LD_PRELOAD", shim);
    guest.args(["--signal=KILL", &bounds.seconds.to_string(), "linux.uml"]);
    guest.arg(format!("mem={}M", bounds.memory));
    guest.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]);
    guest.args(["con0=null,fd:1", "con=null", "quiet", "loglevel=3"]);
    guest.arg(format!("uml_dir={directory}"));
    guest.arg(format!("init={}", home.join("guest").join(script).display()));
    // What the kernel does not know is the first process's environment.
    guest.arg(format!("DMS_BIN={}", bin_dir().display()));
    guest.arg(format!("DMS_PIPELINES={}", home.join("../pipelines").display()));
    // Quoted, it may have spaces.
    guest.args(variables.iter().map(|(name, value)| format!("{name}=\"{value}\"")));
    let output = guest.stdin(Stdio::null()).output().expect("timeout is there");
    std::fs::remove_dir_all(&directory).expect("it is ours");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

impl Scenario<'_> {
    /// Its answers, in their order.
    #[track_caller]
    pub fn answers(&self) -> Vec<Value> {
        let lines = self.lines.iter().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self}"))).collect()
    }

    /// What stands behind a word, line by line.
    pub fn said(&self, word: &str) -> Vec<&str> {
        let behind = |line: &&'_ str| line.strip_prefix(word)?.strip_prefix(": ").map(str::len);
        self.lines
            .iter()
            .filter_map(|line| behind(line).map(|length| &line[line.len() - length..]))
            .collect()
    }

    /// How long each request took, in seconds.
    pub fn took(&self) -> Vec<f64> {
        self.said("took").iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl std::fmt::Display for Scenario<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "scenario {}\n{}", self.name, self.lines.join("\n"))
    }
}
