//! The ledger on two servers that are one: what both of them let pass must not both be. Controllers on each
//! of them plan for the same targets at once. Nothing is mounted here: who acts sees who was told what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Database, Filter, Lab, eventually, run};
use serde_json::{Value, json};

const CONTROLLERS: i32 = 8;
const TARGETS: usize = 2;

/// A target, as who acts and the jobs see it.
#[derive(Debug, Default)]
struct Target {
    /// The plan that is acted on just now.
    acting: Option<Value>,
    mounted: bool,
    /// The jobs that were told that they have it, and have not asked to leave.
    holders: BTreeSet<i32>,
}

#[derive(Debug, Default)]
struct Seen {
    targets: BTreeMap<String, Target>,
    holds: u64,
    unmounts: u64,
    wrong: Vec<String>,
}

/// A controller: its `plan` and its `commit`, on one of the servers.
struct Controller {
    plan: Filter,
    commit: Filter,
}

impl Controller {
    /// With locks of its own: nothing but the ledger keeps it apart from others.
    fn start(lab: &Lab, url: &str) -> Controller {
        let locks = lab.fresh_path("locks");
        let start = |program: &str, args: &[&str]| {
            let mut command = lab.command(program, args);
            command.env("DMS_DB_URL", url).env("DMS_REQUEST_TIMEOUT", "20");
            // Should one of them end, it says why.
            Filter::start_heard(command.env("DMS_LOG_LEVEL", "WARNING").env("DMS_LOCK_DIR", &locks))
        };
        Controller {
            plan: start("dms-lock", &["--each", "--", "dms-ledger", "plan"]),
            commit: start("dms-ledger", &["commit"]),
        }
    }

    /// Asks for it; what a plan says is done, and seen.
    fn ask(&mut self, request: &Value, seen: &Mutex<Seen>) -> Value {
        let planned = self.plan.ask(request);
        if planned["plan"].is_null() {
            return planned;
        }
        act(&planned["plan"], seen);
        let done = json!({"status": "success", "error_msg": null, "success_msg": "done",
            "plan": planned["plan"]});
        self.commit.ask(&done)
    }

    fn end(self) {
        self.plan.end();
        self.commit.end();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what the plan says, for some milliseconds.
fn act(plan: &Value, seen: &Mutex<Seen>) {
    let name = plan["target"].as_str().unwrap_or_default();
    let mut now = lock(seen);
    let Seen { targets, unmounts, wrong, .. } = &mut *now;
    let target = targets.entry(name.to_owned()).or_default();
    if let Some(other) = target.acting.replace(plan.clone()) {
        wrong.push(format!("two acts at once:\n{other}\n{plan}"));
    }
    match plan["decision"].as_str() {
        Some("mount") => target.mounted = true,
        Some("unmount") => {
            if !target.holders.is_empty() {
                wrong.push(format!("unmounted under {:?}:\n{plan}", target.holders));
            }
            target.mounted = false;
            *unmounts += 1;
        }
        _ => {}
    }
    drop(now);
    thread::sleep(Duration::from_millis(2));
    lock(seen).targets.entry(name.to_owned()).or_default().acting = None;
}

/// A job after the other, by one of the servers and by the other, until `end`.
fn jobs(lab: &Lab, urls: &[String; 2], job: i32, end: Instant, seen: &Mutex<Seen>) {
    let mut controllers = urls.each_ref().map(|url| Controller::start(lab, url));
    let start = usize::try_from(job).expect("it is small");
    for round in start.. {
        if Instant::now() >= end {
            break;
        }
        let name = format!("t{}", (round / 3) % TARGETS);
        let mounted = controllers[round % 2].ask(&lab.request("mount", job, &name), seen);
        if mounted["status"] == "success" {
            let mut now = lock(seen);
            now.holds += 1;
            let target = now.targets.entry(name.clone()).or_default();
            target.holders.insert(job);
            if !target.mounted {
                now.wrong.push(format!("job {job} was told yes: {mounted}"));
            }
        } else {
            lock(seen).wrong.push(format!("job {job} was told no: {mounted}"));
        }
        thread::sleep(Duration::from_millis(u64::try_from(round % 7).unwrap_or(0)));
        lock(seen).targets.entry(name.clone()).or_default().holders.remove(&job);
        let left = controllers[(round / 2) % 2].ask(&lab.request("unmount", job, &name), seen);
        if left["status"] != "success" {
            lock(seen).wrong.push(format!("job {job} could not leave: {left}"));
        }
    }
    controllers.into_iter().for_each(Controller::end);
}

#[test]
#[ignore = "it takes minutes: make galera"]
fn of_two_plans_on_two_nodes_of_a_galera_cluster_one_waits() {
    let nodes = Database::cluster();
    let lab = Lab::unique();
    let url = nodes[0].create("cluster");
    let other = url.replace(&format!(":{}/", nodes[0].port()), &format!(":{}/", nodes[1].port()));
    let urls = [url, other];
    let mut init = lab.command("dms-ledger", &["init"]);
    assert!(init.env("DMS_DB_URL", &urls[0]).status().is_ok_and(|end| end.success()));
    // What one of them has committed, the other does at its leisure.
    eventually("the other server knows the ledger", || {
        let mut check = lab.command("dms-ledger", &["check"]);
        run(check.env("DMS_DB_URL", &urls[1]), b"").code == 0
    });
    let end = Instant::now() + Duration::from_secs(120);
    let seen = Mutex::new(Seen::default());
    thread::scope(|scope| {
        for job in 1..=CONTROLLERS {
            let (lab, urls, seen) = (&lab, &urls, &seen);
            scope.spawn(move || jobs(lab, urls, job, end, seen));
        }
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
    assert!(seen.holds > 50 && seen.unmounts > 5, "{} holds", seen.holds);
    let left = "SELECT (SELECT COUNT(*) FROM backup_target_mount_ledger WHERE mounted = 1)
        + (SELECT COUNT(*) FROM backup_target_mount_operations WHERE pending = 1)";
    for node in &nodes {
        assert_eq!(node.sql("dms_cluster", left).trim(), "0");
    }
}
