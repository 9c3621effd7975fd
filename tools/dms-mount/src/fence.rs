//! The fences of a target: for each ledger, the last plan that was acted on. One that was overtaken and comes
//! late is refused.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dms_wire::Plan;

use crate::run_dir::replace;

/// So many ledgers are remembered, those that were last acted on: a line `<ledger id> <seq>` for each.
const KEPT: usize = 8;

/// So much can be written over what a file has, in bytes: it is done in one go, which no signal ends half
/// way, and takes no room.
const AT_ONCE: usize = 1024;

/// Checks the plan's fence against the last one of its ledger, and notes it in this file of its target's.
/// False: a later plan has been here. Only under the act lock.
///
/// # Errors
/// If the file cannot be read or written.
pub(crate) fn pass(path: &Path, plan: &Plan) -> io::Result<bool> {
    let mut text = String::new();
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(mut file) => file.read_to_string(&mut text).map(|_| Some(file))?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(why),
    };
    let mut fences: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(ledger, seq)| Some((ledger, seq.parse().ok()?)))
        .collect();
    let last = fences.iter().find(|(ledger, _)| *ledger == plan.ledger).map(|(_, seq)| *seq);
    match last {
        Some(last) if plan.seq < last => return Ok(false),
        Some(last) if plan.seq == last => return Ok(true),
        _ => {}
    }
    fences.retain(|(ledger, _)| *ledger != plan.ledger);
    fences.insert(0, (&plan.ledger, plan.seq));
    fences.truncate(KEPT);
    let new: String = fences.iter().map(|(ledger, seq)| format!("{ledger} {seq}\n")).collect();
    match file {
        Some(file) if new.len() == text.len() && new.len() <= AT_ONCE => {
            file.write_all_at(new.as_bytes(), 0)?;
        }
        _ => replace(path, new.as_bytes(), 0o644)?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn plan(ledger: &str, seq: u64) -> Plan {
        serde_json::from_value(json!({
            "operation": "o", "ledger": ledger, "seq": seq, "job": 1, "target": "t", "host": "h",
            "path": "/m/t", "action": "mount", "decision": "mount",
        }))
        .expect("a plan")
    }

    #[test]
    fn a_lower_fence_is_refused_and_an_equal_one_is_a_repeat() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("t");
        let pass = |ledger, seq| pass(&file, &plan(ledger, seq)).expect("it can be written");
        assert!(pass("a", 5) && pass("a", 5) && pass("a", 7));
        assert!(!pass("a", 6));
        assert!(pass("b", 1), "the fences of two ledgers cannot be compared");
        assert!(!pass("a", 6), "the other ledger's fence was forgotten");
        // Over what the file has, and longer than that.
        assert!(pass("b", 2) && pass("b", 3) && pass("b", 10) && pass("a", 8) && pass("a", 9));
        assert!(!pass("b", 9) && !pass("a", 8));
        assert_eq!(fs::read_to_string(file).expect("it was written"), "a 9\nb 10\n");
    }

    #[test]
    fn of_many_ledgers_the_last_eight_are_remembered_and_nothing_is_left_of_the_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("t");
        let pass = |ledger, seq| pass(&file, &plan(ledger, seq)).expect("it can be written");
        for ledger in ["a long one", "a", "b", "c", "d", "e", "f", "g", "h"] {
            assert!(pass(ledger, 2));
        }
        let text = fs::read_to_string(&file).expect("it was written");
        assert_eq!(text, "h 2\ng 2\nf 2\ne 2\nd 2\nc 2\nb 2\na 2\n");
        assert!(!pass("a", 1) && pass("a long one", 1));
    }
}
