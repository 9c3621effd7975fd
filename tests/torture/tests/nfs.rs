//! Torture with NFS targets, in a guest that has client and server, and a kernel that takes its time:
//! `make torture-nfs`, with another seed each time; `make check-long` does it, too.

use std::io::{self, Write};
use std::path::Path;

use dms_tests::{Bounds, Guest};

/// What a guest cannot have: its nf_tables know no addresses, so that no wire can be cut.
const WITHOUT: &str = "cut";

/// How a run there is: fewer jobs and fewer faults at once than elsewhere, and more time for each.
const SMALL: &str = "--exports 4 --targets 1 --pools 0 --workers 6 --pause 2 --timeout 30";

/// From the environment, or what is usual.
fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

#[test]
#[ignore = "it takes minutes: make torture-nfs"]
fn nothing_is_lost_when_exports_are_among_the_targets() {
    let seconds = setting("DMS_TORTURE_SECONDS", "120");
    let seed = setting("DMS_TORTURE_SEED", "20261122");
    let more = setting("DMS_TORTURE_OPTIONS", "");
    let options = format!("--seconds {seconds} --seed {seed} --without {WITHOUT} {SMALL} {more}");
    let built = Path::new(env!("CARGO_BIN_EXE_torture")).parent().expect("cargo's layout");
    let built = built.display().to_string();
    let keep = std::env::temp_dir().display().to_string();
    // To start and to come to rest takes minutes.
    let faults: u32 = seconds.parse().expect("DMS_TORTURE_SECONDS is a number");
    let bounds = Bounds { seconds: faults + 900, memory: 2000 };
    let variables = [("DMS_TORTURE", &*options), ("DMS_BUILT", &*built), ("DMS_KEEP", &*keep)];
    let guest = Guest::run_within(bounds, "torture.sh", &variables);
    let run = guest.scenario("torture");
    // The figures are what a long run is for.
    writeln!(io::stderr().lock(), "{run}").expect("stderr is there");
    assert_eq!(run.said("code"), ["0"], "history in {keep}\n{run}");
    // A run in which nothing happened has shown nothing.
    let number = |word: &str| -> u32 {
        let text = run.to_string();
        let before = text.split(word).next().unwrap_or_default();
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    assert!(number(" holds") >= 5, "{run}");
}
