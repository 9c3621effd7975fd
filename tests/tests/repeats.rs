//! The same request once more, after its pipeline has died: nothing is lost by it.

use std::fs;

use dms_tests::Lab;
use serde_json::{Value, json};

/// A request with an id of its own.
fn request(lab: &Lab, action: &str, id: &str) -> Value {
    let mut request = lab.request(action, 1, "t1");
    request["request_id"] = json!(id);
    request
}

/// The request gets as far as its plan; then its pipeline dies.
fn cut(lab: &Lab, request: &Value) {
    fs::write(lab.path("line"), format!("{request}\n")).expect("room for it");
    lab.shell("dms-lock -- dms-ledger plan <line >/dev/null").expect(0);
}

#[test]
fn an_unmount_that_was_cut_before_its_act_is_carried_out_when_it_comes_again() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let unmount = request(&lab, "unmount", "leave");
    // Twice: it is still the same request.
    cut(&lab, &unmount);
    cut(&lab, &unmount);
    let answer = lab.send(&unmount);
    assert_eq!((&answer["status"], &answer["unmounted"]), (&json!("success"), &json!(true)));
    lab.assert_gone("t1");
}

#[test]
fn an_unmount_that_was_cut_and_settled_by_others_leaves_their_mount_alone() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let unmount = request(&lab, "unmount", "leave");
    cut(&lab, &unmount);
    lab.mount(2, "t1");
    let answer = lab.send(&unmount);
    assert_eq!(answer["error_code"], "no_active_mount", "{answer}");
    assert_eq!(lab.users("t1"), [2]);
    assert!(lab.mounted("t1").is_some(), "unmounted under job 2");
}

#[test]
fn a_mount_that_is_looked_at_again_stays_on_record_when_that_is_cut() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    let unmount = request(&lab, "unmount", "leave");
    cut(&lab, &unmount);
    let mount = request(&lab, "mount", "come");
    assert_eq!(lab.send(&mount)["status"], "success");
    cut(&lab, &mount);

    // The job was told yes: an unmount of before is late.
    let late = lab.send(&unmount);
    assert_eq!(late["error_code"], "stale", "{late}");
    assert!(lab.mounted("t1").is_some(), "unmounted under job 1");
    assert_eq!(lab.users("t1"), [1]);
    assert_eq!(lab.send(&mount)["reused_existing"], true);
    lab.shell("dms-mount list | dms-ledger audit").expect(0);
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
    assert_eq!(lab.send(&mount)["error_code"], "stale");
}

/// The request gets its plan, and nobody hears how it went.
fn lose(lab: &Lab, request: &Value) {
    let planned = lab.feed("dms-ledger", &["plan"], &request.to_string()).expect(0).line();
    let unknown = json!({"status": "error", "error_msg": "timeout", "success_msg": null,
        "error_code": "timeout", "plan": planned["plan"]});
    lab.feed("dms-ledger", &["commit"], &unknown.to_string()).expect(1);
}

#[test]
fn what_came_first_and_was_done_last_makes_what_is_between_late() {
    let lab = Lab::new();
    let (mount, unmount) = (request(&lab, "mount", "come"), request(&lab, "unmount", "leave"));
    lose(&lab, &mount);
    lose(&lab, &unmount);
    // Done again, the mount keeps the time at which it came first; its fence is a new one.
    assert_eq!(lab.send(&mount)["physically_mounted"], true);
    let late = lab.send(&unmount);
    assert_eq!(late["error_code"], "stale", "{late}");
    assert!(lab.mounted("t1").is_some(), "unmounted under job 1");
    assert_eq!(lab.users("t1"), [1]);
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
}

#[test]
fn the_unmount_of_a_run_that_was_killed_does_not_take_what_the_next_run_has_mounted() {
    let lab = Lab::new();
    let send = |action: &str, life: Option<&str>| {
        let mut request = lab.request(action, 1, "t1");
        if let Some(life) = life {
            request["owner"] = json!({"host": "elsewhere", "boot": "b", "life": life});
        }
        lab.send(&request)
    };
    send("mount", Some("/killed"));
    send("mount", Some("/next"));
    let late = send("unmount", Some("/killed"));
    assert_eq!(late["error_code"], "no_active_mount", "{late}");
    assert_eq!(late["active_mounts_remaining"], 1, "{late}");
    assert!(lab.mounted("t1").is_some(), "unmounted under the next run");
    // By the job itself, it is its own.
    send("mount", None);
    assert_eq!(send("unmount", Some("/next"))["error_code"], "no_active_mount");
    // Who does not say who he is, is the job.
    send("mount", Some("/last"));
    assert_eq!(send("unmount", None)["unmounted"], true);
    lab.assert_gone("t1");
}

#[test]
fn the_mount_of_a_run_that_was_killed_does_not_take_the_place_of_the_next_runs() {
    let lab = Lab::new();
    let read = |path: &str| fs::read_to_string(path).expect("/proc is there").trim().to_owned();
    let killed = json!({"host": read("/proc/sys/kernel/hostname"),
        "boot": read("/proc/sys/kernel/random/boot_id"), "life": lab.path("lock/life/killed")});
    lab.mount(1, "t1");
    let mut late = lab.request("mount", 1, "t1");
    late["owner"] = killed;
    let late = lab.send(&late);
    assert_eq!(late["error_code"], "stale", "{late}");
    // Nor is it taken away by the next one who leaves.
    lab.mount(2, "t1");
    assert_eq!(lab.unmount(2, "t1")["unmounted"], false);
    assert!(lab.mounted("t1").is_some(), "unmounted under the next run");
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
}

#[test]
fn what_a_broken_disk_kept_from_being_planned_is_done_when_it_comes_again() {
    let lab = Lab::on_sqlite();
    lab.mount(1, "t1");
    let unmount = request(&lab, "unmount", "leave");
    fs::write(lab.path("line"), format!("{unmount}\n")).expect("room for it");
    // The second time it is there already.
    let broken = "strace -f -o /dev/null -e inject=fsync,fdatasync:error=EIO:when=1";
    for _ in 0..2 {
        let answer = lab.shell(&format!("{broken} dms-ledger plan <line")).line();
        assert_eq!(answer["error_code"], "database", "{answer}");
        let [seen] = &lab.history("t1")[..1] else { panic!("it is in the journal") };
        assert_eq!(seen["status"], "error", "{seen}");
    }
    let again = lab.send(&unmount);
    assert_eq!((&again["status"], &again["unmounted"]), (&json!("success"), &json!(true)));
    lab.assert_gone("t1");
}
