//! Large ledgers: what is asked every day takes as long in a large one as in a small one, and every
//! such statement goes by its index.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dms_tests::{BUSY_TARGET, Database, Filter, Lab, NODE, fill, is_long_run, ledger_alone};

/// How many rows each table of the small ledger has.
const SMALL: u32 = 1000;

/// How often each command is run on each ledger.
const ROUNDS: usize = 15;

/// The test that measures has the machine's two cores for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// What is asked every day.
const COMMANDS: [(&str, &[&str]); 9] = [
    ("list --host", &["list", "--json", "--host", NODE]),
    ("list --target-id", &["list", "--json", "--target-id", BUSY_TARGET]),
    ("list --older-than", &["list", "--json", "--older-than", "24h"]),
    ("status", &["status", "--json", "--job-id", "1080", "--target-id", BUSY_TARGET]),
    ("history --target-id", &["history", "--json", "--target-id", BUSY_TARGET]),
    ("history --host", &["history", "--json", "--host", NODE]),
    ("history --job-id", &["history", "--json", "--job-id", "7"]),
    ("history --status", &["history", "--json", "--status", "error", "--limit", "20"]),
    ("cleanup --dry-run", &["cleanup", "--json", "--hours", "24", "--dry-run"]),
];

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A server with room for a large table in its memory.
fn server() -> Arc<Database> {
    let options = ["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=256M"];
    Arc::new(Database::with_options(&options))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The times of each command, in milliseconds; the last ones are those of a request through the
/// ledger.
fn measure(labs: [&Lab; 2]) -> [Vec<Vec<f64>>; 2] {
    let mut times = [0, 1].map(|_| vec![Vec::new(); COMMANDS.len() + 1]);
    let mut pipelines = labs.map(|lab| Filter::start(&mut ledger_alone(lab)));
    for round in 0..ROUNDS {
        // In turns, so that whatever else the machine does, it does to both.
        for (number, (_, args)) in COMMANDS.iter().enumerate() {
            for which in [round % 2, (round + 1) % 2] {
                let start = Instant::now();
                let said = labs[which].feed("dms-ledger", args, "");
                times[which][number].push(start.elapsed().as_secs_f64() * 1e3);
                assert!(said.expect(0).stdout.contains('\n'), "nothing was found: {said}");
            }
        }
        for which in [round % 2, (round + 1) % 2] {
            for _ in 0..10 {
                for action in ["mount", "unmount"] {
                    let request = labs[which].request(action, 1, BUSY_TARGET);
                    let start = Instant::now();
                    let answer = pipelines[which].ask(&request);
                    times[which][COMMANDS.len()].push(start.elapsed().as_secs_f64() * 1e3);
                    assert_eq!(answer["status"], "success", "{answer}");
                }
            }
        }
    }
    pipelines.into_iter().for_each(Filter::end);
    times
}

/// Measures a ledger of this size beside a small one.
fn compare(engine: &str, small: &Lab, large: &Lab, rows: u32) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fill(small, SMALL);
    fill(large, rows);
    let [few, many] = measure([small, large]);
    let names = COMMANDS.iter().map(|(name, _)| *name).chain(["plan and commit"]);
    tell(&format!("{engine}: milliseconds with {SMALL} rows in each table, with {rows}"));
    let mut slow = Vec::new();
    for (name, (few, many)) in names.zip(few.into_iter().zip(many)) {
        // Each beside the one before or after it, which had the same machine.
        let ratio = median(few.iter().zip(&many).map(|(few, many)| many / few).collect());
        let (few, many) = (median(few), median(many));
        tell(&format!("  {name:20} {few:7.2} {many:7.2}, {ratio:.2} times"));
        slow.extend((ratio > 2.0).then_some(name));
    }
    assert!(slow.is_empty(), "more than twice as long with {rows} rows: {slow:?}");
}

fn large() -> u32 {
    if is_long_run() { 1_000_000 } else { 100_000 }
}

#[test]
fn a_large_ledger_in_a_file_is_as_quick_as_a_small_one() {
    compare("SQLite", &Lab::on_sqlite(), &Lab::on_sqlite(), large());
}

#[test]
fn a_large_ledger_on_a_server_is_as_quick_as_a_small_one() {
    let server = server();
    let labs = [0, 1].map(|_| Lab::on_mariadb(server.clone()));
    compare("MariaDB", &labs[0], &labs[1], large());
}
