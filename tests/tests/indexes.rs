//! Every statement that the ledger sends goes by an index, and what is asked for "newest first" is
//! not sorted. The statements are those that the tools send, as a log has them.

use dms_tests::{BUSY_JOB, BUSY_TARGET, Database, Lab, NODE, Run, fill, ledger_alone, run};

const BINDINGS: &str = "backup_target_mount_ledger";
const JOURNAL: &str = "backup_target_mount_operations";

/// Enough for a server to see that a table should not be read as a whole.
const ROWS: u32 = 20_000;

/// What SQLite calls the indexes of keys.
const KEYS: [(&str, &str); 4] = [
    ("sqlite_autoindex_backup_target_mount_ledger_1", "uq_job_target_host"),
    ("sqlite_autoindex_backup_target_mount_operations_1", "PRIMARY"),
    ("sqlite_autoindex_backup_target_mount_operations_2", "uq_pending"),
    ("sqlite_autoindex_backup_target_mount_operations_3", "uq_pending_path"),
];

/// A statement, and what the engine makes of it.
struct Explained {
    sql: String,
    /// The engine's own words.
    plan: String,
    /// Empty: none, or several at once.
    index: String,
    /// From one end to the other.
    whole: bool,
    sorts: bool,
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.sql, self.plan)
    }
}

/// The statements about the two tables that this has sent, explained.
#[track_caller]
fn explain(lab: &Lab, act: impl FnOnce() -> Run) -> Vec<Explained> {
    let sent = if lab.is_on_server() { heard_by_server(lab, act) } else { told_in_log(&act()) };
    let is_ours = |sql: &String| {
        (sql.contains(BINDINGS) || sql.contains(JOURNAL)) && !sql.starts_with("INSERT")
    };
    let explain = if lab.is_on_server() { explain_mariadb } else { explain_sqlite };
    sent.into_iter().filter(is_ours).map(|sql| explain(lab, sql)).collect()
}

/// The statements with their values.
#[track_caller]
fn heard_by_server(lab: &Lab, act: impl FnOnce() -> Run) -> Vec<String> {
    lab.sql("TRUNCATE mysql.general_log; SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON");
    act().expect(0);
    let log = lab.sql(
        "SET GLOBAL general_log = OFF;
         SELECT REGEXP_REPLACE(argument, '[[:space:]]+', ' ') FROM mysql.general_log \
         WHERE command_type IN ('Execute', 'Query') ORDER BY event_time",
    );
    // The client writes a backslash twice. What is sent at once is one line.
    let sent = log.lines().flat_map(|line| line.split("; "));
    sent.map(|line| line.replace(r"\\", r"\")).collect()
}

/// The statements without their values.
#[track_caller]
fn told_in_log(said: &Run) -> Vec<String> {
    let lines = said.expect(0).stderr.lines();
    // Behind a statement stands which request it is for.
    let statement = |line: &str| line.split(" (request ").next().map(str::to_owned);
    lines.filter_map(|line| statement(line.split_once(": trace: ")?.1)).collect()
}

fn explain_sqlite(lab: &Lab, sql: String) -> Explained {
    let plan = lab.sql(&format!("EXPLAIN QUERY PLAN {sql};"));
    let plan = plan.replace("USING COVERING INDEX", "USING INDEX");
    let index = plan.split("USING INDEX ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let index = index.filter(|_| !plan.contains("MULTI-INDEX")).unwrap_or_default();
    let index = KEYS.iter().find(|key| key.0 == index).map_or(index, |key| key.1).to_owned();
    let whole = plan.contains("SCAN ");
    let sorts = plan.contains("ORDER BY");
    Explained { sql, plan, index, whole, sorts }
}

fn explain_mariadb(lab: &Lab, sql: String) -> Explained {
    let plan = lab.sql(&format!("EXPLAIN {sql};"));
    let inner = plan.lines().find(|line| !line.contains("<derived")).unwrap_or_default();
    let fields: Vec<&str> = inner.split('\t').collect();
    let [access, index, extra] = [3, 5, 9].map(|column| fields[column]);
    let index = if access == "index_merge" || index == "NULL" { "" } else { index }.to_owned();
    let (whole, sorts) = (["ALL", "index"].contains(&access), extra.contains("filesort"));
    Explained { sql, plan, index, whole, sorts }
}

/// What is asked, the indexes that it may go by, and whether it is read in the order of the index
/// up to its limit.
fn questions() -> Vec<(Vec<&'static str>, &'static [&'static str], bool)> {
    const BY_HOST: &[&str] = &["idx_host_mounted", "idx_mounted_host"];
    const BY_BINDING: &[&str] =
        &["uq_job_target_host", "idx_job_target", "idx_jobid", "idx_job_id"];
    let busy_job: &'static str = Box::leak(BUSY_JOB.to_string().into_boxed_str());
    let target = ["--target-id", BUSY_TARGET];
    let status = [&["status", "--job-id", "1080"][..], &target].concat();
    vec![
        (vec!["list"], &["idx_mounted_host"], false),
        (vec!["list", "--host", NODE], BY_HOST, false),
        ([&["list"][..], &target].concat(), &["idx_target_mounted"], false),
        ([&["list", "--host", NODE][..], &target].concat(), &["idx_target_host_mounted"], false),
        (vec!["list", "--older-than", "24h"], &["idx_mounted_host"], false),
        (vec!["cleanup", "--hours", "24", "--dry-run"], &["idx_mounted_host"], false),
        (status.clone(), BY_BINDING, false),
        ([&status[..], &["--host", NODE]].concat(), BY_BINDING, false),
        (vec!["history"], &["operations_idx_created"], true),
        ([&["history"][..], &target].concat(), &["operations_idx_target_created"], true),
        (vec!["history", "--host", NODE], &["operations_idx_host_created"], true),
        (vec!["history", "--job-id", busy_job], &["operations_idx_job_created"], true),
        (vec!["history", "--status", "error"], &["operations_idx_status_created"], true),
    ]
}

/// What is removed from the journal, a thousand at a time, is found again and again.
fn shorten(lab: &Lab) {
    let mut command = lab.command("dms-ledger", &["cleanup", "--journal-days", "13"]);
    let sent = explain(lab, || run(command.env("DMS_LOG_LEVEL", "TRACE"), b""));
    let old = |found: &&Explained| found.sql.contains("created_at <");
    assert!(sent.iter().filter(old).count() >= 2, "it is done at once");
    for found in sent.iter().filter(old) {
        assert!(found.index == "operations_idx_created" && !found.sorts, "{found}");
    }
    let removals: Vec<_> = sent.iter().filter(|one| one.sql.starts_with("DELETE")).collect();
    assert!(!removals.is_empty() && removals.len() < 10, "{} removals", removals.len());
    for removal in removals {
        assert!(removal.index == "PRIMARY" && !removal.whole, "{removal}");
    }
}

/// What compares the ledger with a node reads what is in use there and what is open, not the past.
fn reconcile(lab: &Lab) {
    for command in ["reconcile", "audit"] {
        // What they find is not the question.
        let script = format!("dms-mount list | dms-ledger {command} --host {NODE} || test $? = 1");
        let mut command = lab.command("sh", &["-c", &script]);
        let sent = explain(lab, || run(command.env("DMS_LOG_LEVEL", "TRACE"), b""));
        assert!(sent.len() >= 3, "{} statements", sent.len());
        for statement in sent {
            assert!(!statement.index.is_empty() && !statement.whole, "{statement}");
        }
    }
}

fn check(lab: &Lab) {
    fill(lab, ROWS);
    for (args, indexes, is_ordered) in questions() {
        let mut command = lab.command("dms-ledger", &args);
        let sent = explain(lab, || run(command.env("DMS_LOG_LEVEL", "TRACE"), b""));
        let (last, before) = sent.split_last().expect("something was sent");
        let whole = last.whole && !is_ordered;
        assert!(
            indexes.contains(&&*last.index) && !whole && !(is_ordered && last.sorts),
            "{args:?}: {last}"
        );
        assert!(!before.is_empty(), "{args:?}: it did not look for what is pending");
        for settling in before {
            assert_eq!(settling.index, "operations_idx_pending", "{settling}");
        }
    }
    shorten(lab);
    reconcile(lab);
    let request = |action: &str| lab.request(action, 1, BUSY_TARGET).to_string() + "\n";
    let lines = request("mount") + &request("unmount");
    let sent =
        explain(lab, || run(ledger_alone(lab).env("DMS_LOG_LEVEL", "TRACE"), lines.as_bytes()));
    let mut settled = 0;
    for statement in sent {
        assert!(!statement.index.is_empty() && !statement.whole, "{statement}");
        if statement.sql.contains("AND status = 'unsettled'") {
            assert_eq!(statement.index, "operations_idx_target_host_status", "{statement}");
            settled += 1;
        }
    }
    assert_eq!(settled, 1, "a mount settles what was unknown of its target");
}

#[test]
fn in_a_file_every_statement_goes_by_the_index_that_is_meant_for_it() {
    check(&Lab::on_sqlite());
}

#[test]
fn on_a_server_every_statement_goes_by_the_index_that_is_meant_for_it() {
    check(&Lab::on_mariadb(Database::start().into()));
}
