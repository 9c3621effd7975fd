//! kill -9 of plan and of commit at each system call by which they touch the ledger, their input or
//! their output: the next command repairs it.

use std::io::Write;

use dms_tests::{
    Boundary, Lab, Run, boundaries, is_long_run, killed_at, run, summary, traced, was_killed,
};
use serde_json::{Value, json};

/// The job whose pipeline is ended.
const JOB: i32 = 2;

/// Which stage ends, of which request.
#[derive(Clone, Copy)]
struct Cut {
    stage: &'static str,
    action: &'static str,
    ledger: State,
}

/// What there is before the request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Plain,
    /// Another job uses the target, too.
    Shared,
    /// The next transaction writes SQLite's log back into the file.
    LongLog,
}

impl Cut {
    /// The node's pipeline, with these words before the stage.
    #[track_caller]
    fn run(&self, lab: &Lab, words: &str) -> Run {
        let stages = ["dms-ledger plan", "dms-mount", "dms-ledger commit"].map(|stage| {
            if stage.ends_with(self.stage) { format!("{words} {stage}") } else { stage.to_owned() }
        });
        let mut command = lab.command("dms-lock", &["--each", "--", "sh", "-c", &stages.join("|")]);
        let request = lab.request(self.action, JOB, "t1");
        run(&mut command, format!("{request}\n").as_bytes())
    }

    /// The jobs that use the target when the request has been carried out.
    fn users(&self) -> Vec<i64> {
        let mut users = Vec::new();
        users.extend(self.is_shared().then_some(1));
        users.extend((self.action == "mount").then_some(i64::from(JOB)));
        users
    }

    fn is_shared(&self) -> bool {
        self.ledger == State::Shared
    }

    /// As it is before the request.
    fn prepare(&self, lab: &Lab) {
        if self.action == "unmount" {
            lab.mount(JOB, "t1");
        }
        if self.ledger == State::LongLog {
            // SQLite does it at 1000 pages.
            let mut sql = String::from(
                ".dbconfig no_ckpt_on_close on\n\
                 PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;\n",
            );
            (0..1000).for_each(|page| sql += &format!("PRAGMA user_version = {page};\n"));
            lab.sql(&sql);
        }
    }

    /// The same job asks again; then it leaves.
    fn repair(&self, lab: &Lab, answer: &Value, at: &Boundary) {
        let users = lab.users("t1");
        let told = answer["status"] == "success";
        assert!(told || answer["error_code"] == "internal", "{at}: {answer}");
        assert!(!told || users == self.users(), "{at}: success, and {users:?} use it");
        let again = lab.send(&lab.request(self.action, JOB, "t1"));
        let left = self.action == "unmount" && again["error_code"] == "no_active_mount";
        assert!(again["status"] == "success" || left, "{at}: {again}");
        check(lab, &self.users(), at);
        if self.action == "mount" {
            assert_eq!(lab.unmount(JOB, "t1")["unmounted"], json!(!self.is_shared()), "{at}");
            check(lab, if self.is_shared() { &[1] } else { &[] }, at);
        }
    }
}

/// Ledger, kernel and daemon say the same, and who was told yes writes to the bucket.
#[track_caller]
fn check(lab: &Lab, users: &[i64], at: &Boundary) {
    assert_eq!(lab.users("t1"), users, "{at}");
    assert_eq!(lab.mounted("t1").is_some(), !users.is_empty(), "{at}");
    assert_eq!(lab.daemons("t1").len(), usize::from(!users.is_empty()), "{at}");
    assert_eq!(open_operations(lab), 0, "{at}");
    if !users.is_empty() {
        let file = lab.mount_point("t1").join("witness");
        std::fs::write(&file, at.to_string()).expect("a job that was told yes can write");
        let object = std::fs::read_to_string(lab.object("witness")).expect("in the bucket");
        assert_eq!(object, at.to_string(), "written beside the mount");
    }
}

fn open_operations(lab: &Lab) -> usize {
    let args = ["history", "--json", "--target-id", "t1", "--status", "pending"];
    lab.feed("dms-ledger", &args, "").expect(0).lines().len()
}

/// The calls to end at: all of them in a long run, and on SQLite. On a server, and where the log is
/// written back, not those before the request; and not where an answer is waited for: an end there
/// is an end after the statement was sent.
fn chosen<'a>(lab: &Lab, ledger: State, all: &'a [Boundary]) -> Vec<&'a Boundary> {
    if is_long_run() || (ledger != State::LongLog && !lab.is_on_server()) {
        return all.iter().collect();
    }
    let begun = all.iter().skip_while(|at| at.object != "input");
    begun.filter(|at| at.object != "the server's answer").collect()
}

/// Each kind of call was ended at. Of those that write page after page, a few may be missed: it is
/// a page more or less each time. Where the log is written back, the kinds that count are those that
/// write: who finds the file too long and cuts it, or closes it last, differs from run to run.
/// Nor do those on SQLite's shared memory, which whoever comes first makes.
#[track_caller]
fn reached(ledger: State, chosen: &[&Boundary], missed: &[&Boundary]) {
    let count = |calls: &[&Boundary], kind: &str| {
        calls.iter().filter(|call| call.to_string() == kind).count()
    };
    for kind in missed.iter().map(ToString::to_string) {
        let (missed, all) = (count(missed, &kind), count(chosen, &kind));
        let writes = ["pwrite64 ", "fsync "].iter().any(|call| kind.starts_with(call));
        let counts = (ledger != State::LongLog || writes) && !kind.ends_with("-shm");
        assert!(!counts || missed * 4 <= all, "{kind}: {missed} of {all} were not reached");
    }
    let (missed, all) = (missed.len(), chosen.len());
    assert!(missed * 4 <= all, "{missed} of {all} were not reached");
}

/// How often a call is waited for that a run does not come to.
const TRIES: usize = 3;

/// Ends the stage at each of its calls.
fn cut_everywhere(lab: &Lab, cut: Cut) {
    lab.feed("dms-ledger", &["init"], "").expect(0);
    if cut.is_shared() {
        lab.mount(1, "t1");
    }
    let log = lab.path("strace");
    // The first request makes what is made once.
    for _ in 0..2 {
        cut.prepare(lab);
        cut.run(lab, &traced(&log)).expect(0);
        if cut.action == "mount" {
            lab.unmount(JOB, "t1");
        }
    }
    let all = boundaries(&log, &lab.path(""));
    let writes_back = all.iter().any(|at| at.to_string() == "pwrite64 state/ledger.db");
    assert_eq!(writes_back, cut.ledger == State::LongLog, "{}", summary(&all));
    let chosen = chosen(lab, cut.ledger, &all);
    let mut missed = Vec::new();
    for &at in &chosen {
        // Who closes SQLite's file last, and what that is, differs from run to run.
        let is_reached = (0..TRIES).any(|_| {
            cut.prepare(lab);
            let answer = cut.run(lab, &killed_at(&log, at)).line();
            let was_killed = was_killed(&log);
            cut.repair(lab, &answer, at);
            was_killed
        });
        if !is_reached {
            missed.push(at);
        }
    }
    let Cut { stage, action, ledger } = cut;
    tell(&format!(
        "{action}, {ledger:?}: {stage} ended at {} of its {} calls: {}",
        chosen.len() - missed.len(),
        all.len(),
        summary(&all)
    ));
    reached(ledger, &chosen, &missed);
    lab.mount(JOB, "t1");
    lab.unmount(JOB, "t1");
    let unknown = ["history", "--json", "--target-id", "t1", "--status", "unsettled"];
    assert_eq!(lab.feed("dms-ledger", &unknown, "").expect(0).stdout, "", "never settled");
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// For a target that nobody else uses; in a long run, also for one that another job uses.
fn cut_both(stage: &'static str, action: &'static str) {
    cut_everywhere(&Lab::new(), Cut { stage, action, ledger: State::Plain });
    if is_long_run() {
        cut_everywhere(&Lab::new(), Cut { stage, action, ledger: State::Shared });
    }
}

#[test]
fn plan_of_a_mount_can_end_at_any_call() {
    cut_both("plan", "mount");
}

#[test]
fn plan_of_an_unmount_can_end_at_any_call() {
    cut_both("plan", "unmount");
}

#[test]
fn commit_of_a_mount_can_end_at_any_call() {
    cut_both("commit", "mount");
}

#[test]
fn commit_of_an_unmount_can_end_at_any_call() {
    cut_both("commit", "unmount");
}

#[test]
fn plan_can_end_while_it_writes_the_log_back_into_the_file() {
    let cut = Cut { stage: "plan", action: "mount", ledger: State::LongLog };
    cut_everywhere(&Lab::on_sqlite(), cut);
}

#[test]
fn making_a_ledger_can_end_at_any_call_and_the_next_command_makes_what_is_missing() {
    let lab = Lab::new();
    let log = lab.path("strace");
    let unmake = || {
        if lab.is_on_server() {
            let tables = ["mount_ledger", "mount_operations", "mount_fences"];
            let tables = tables.map(|table| format!("backup_target_{table}"));
            lab.sql(&format!("DROP TABLE IF EXISTS dms_ledger_about, {}", tables.join(", ")));
        } else {
            let _ = std::fs::remove_dir_all(lab.path("state"));
        }
    };
    unmake();
    lab.shell(&format!("{} dms-ledger init", traced(&log))).expect(0);
    let all = boundaries(&log, &lab.path(""));
    // On a server, there are as many indexes to make as there are calls, each time.
    let step = if lab.is_on_server() && !is_long_run() { 5 } else { 1 };
    let chosen: Vec<&Boundary> = all.iter().step_by(step).collect();
    let mut missed = Vec::new();
    for &at in &chosen {
        // A server's answer comes in one piece or in two: that is a call more or less.
        let is_reached = (0..TRIES).any(|_| {
            unmake();
            let run = lab.shell(&format!("{} dms-ledger init", killed_at(&log, at)));
            let was_killed = was_killed(&log);
            run.expect(if was_killed { 137 } else { 0 });
            lab.feed("dms-ledger", &["init"], "").expect(0);
            lab.feed("dms-ledger", &["check"], "").expect(0);
            was_killed
        });
        if !is_reached {
            missed.push(at);
        }
    }
    let done = chosen.len() - missed.len();
    tell(&format!("init ended at {done} of its {} calls: {}", all.len(), summary(&all)));
    let may_be_missed = |at: &&Boundary| at.object == "the server's answer";
    assert!(missed.iter().all(may_be_missed), "{} were not reached", missed.len());
    reached(State::Plain, &chosen, &missed);
}
