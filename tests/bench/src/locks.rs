//! dms-lock beside flock(1), and beside the two system calls that both are about.

use std::time::Duration;

use dms_tests::{Taker, Takers, bin_dir};

use crate::sample::{Sample, in_turns, millis};
use crate::table::{Limit, Table};

const LIMIT: Limit = Limit::AtMost(1.1);

/// All three, in turns.
fn three(rounds: usize, measure: impl Fn(Taker) -> Duration) -> [Sample; 3] {
    in_turns(
        rounds,
        &mut [
            &mut || millis(measure(Taker::Ours)),
            &mut || millis(measure(Taker::Flock)),
            &mut || millis(measure(Taker::Calls)),
        ],
    )
}

pub(crate) fn measure(table: &mut Table) {
    let takers = Takers::new(bin_dir().join("dms-lock"));
    let calls = "the command, and open and flock by its starter";
    let whole = three(500, |taker| takers.whole(taker));
    table.ratio(
        "dms-lock, free lock, true: start to end",
        &whole[0],
        ("flock(1)", &whole[1]),
        LIMIT,
    );
    table.ratio("  the same", &whole[0], (calls, &whole[2]), Limit::None);
    let word = three(500, |taker| takers.start_to_word(taker));
    let what = "dms-lock, free lock, echo: start to the command's word";
    table.ratio(what, &word[0], ("flock(1)", &word[1]), LIMIT);
    table.ratio("  the same", &word[0], (calls, &word[2]), Limit::None);
    for (many, rounds) in [(50, 15), (100, 7)] {
        let [ours, theirs] = in_turns(
            rounds,
            &mut [&mut || millis(takers.crowd(Taker::Ours, many)), &mut || {
                millis(takers.crowd(Taker::Flock, many))
            }],
        );
        let what = format!("dms-lock, {many} at once, each holds it for 2 ms: until all are done");
        table.ratio(&what, &ours, ("flock(1)", &theirs), LIMIT);
    }
    let [ours, theirs] = in_turns(
        150,
        &mut [&mut || millis(takers.hand_over(Taker::Ours)), &mut || {
            millis(takers.hand_over(Taker::Flock))
        }],
    );
    let what = "dms-lock, waiting: from the release to the command's word";
    table.ratio(what, &ours, ("flock(1)", &theirs), LIMIT);
}
