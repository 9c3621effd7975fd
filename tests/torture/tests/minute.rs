//! A minute of torture: jobs on three nodes while whatever can fail does. `make torture` goes on for
//! longer, with another seed each time.

use std::process::{Command, Stdio};

/// The seed, for who wants to see the same again; from the environment, for who wants another.
fn seed() -> String {
    std::env::var("DMS_TORTURE_SEED").unwrap_or_else(|_| "20261121".to_owned())
}

#[test]
fn nothing_is_lost_while_whatever_can_fail_does() {
    let history = std::env::temp_dir().join(format!("dms-torture-{}.jsonl", std::process::id()));
    // Its waits are bounded; should one not be, this is.
    let mut torture = Command::new("timeout");
    torture.args(["--signal=INT", "--kill-after=60", "600", env!("CARGO_BIN_EXE_torture")]);
    torture.args(["--seconds", "60", "--seed", &seed(), "--history"]).arg(&history);
    let output = torture.stdin(Stdio::null()).output().expect("it was built");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{said}\nhistory in {}", history.display());
    // A run in which nothing happened has shown nothing.
    let number = |word: &str| -> u32 {
        let before = said.split(word).next().unwrap_or_default();
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    assert!(number(" holds") >= 5, "{said}");
    std::fs::remove_file(&history).expect("it is ours");
}
