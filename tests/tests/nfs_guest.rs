//! NFS targets on a real kernel: its client, its server, versions 3 and 4, in a guest whose first
//! process is `guest/nfs.sh`. Two guests, one for a server that works and one for one that goes
//! away; a test for each thing that happened there.

use std::io::Write;
use std::sync::OnceLock;

use dms_tests::{Guest, Scenario};
use serde_json::Value;

/// The exchanges of the original that need no S3 and no stand-in for mount(8).
const ORIGINAL: [&str; 8] = [
    "01_nfs_mount_first",
    "05_nfs_unmount_last",
    "09_nfs_unmount_not_mounted",
    "10_nfs_mount_already_mounted",
    "11_nfs_unmount_pre",
    "45_ok_unmount_not_mounted",
    "46_ok_minimal_mount",
    "47_ok_minimal_unmount",
];

/// Where they mount, and where the guest lets them.
const BASE: (&str, &str) = ("/srv/dms/mnt", "/mnt/srv/dms/mnt");

fn exchanges() -> Vec<Value> {
    let lines = include_str!("../fixtures/wire.jsonl").lines();
    let all = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let chosen: Vec<Value> =
        all.filter(|exchange| ORIGINAL.iter().any(|name| exchange["name"] == *name)).collect();
    assert_eq!(chosen.len(), ORIGINAL.len());
    chosen
}

/// The guest whose server works.
fn works() -> &'static Guest {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    GUEST.get_or_init(|| {
        let body = |exchange: &Value| {
            let body = exchange["request"]["body"].as_str().expect("it was sent");
            format!("{}\n", body.replace(BASE.0, BASE.1))
        };
        let path = std::env::temp_dir().join(format!("dms-exchanges-{}", std::process::id()));
        std::fs::write(&path, exchanges().iter().map(body).collect::<String>()).expect("room");
        let exchanges = path.display().to_string();
        let guest = Guest::run("nfs.sh", &[("DMS_PART", "works"), ("DMS_EXCHANGES", &exchanges)]);
        std::fs::remove_file(&path).expect("it is ours");
        guest
    })
}

/// The guest whose server goes away.
fn goes() -> &'static Guest {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    GUEST.get_or_init(|| Guest::run("nfs.sh", &[("DMS_PART", "goes")]))
}

/// `field=value` of each answer, as one text each.
#[track_caller]
fn assert_answers(scenario: &Scenario<'_>, wanted: &[&str]) {
    let answers = scenario.answers();
    assert_eq!(answers.len(), wanted.len(), "{scenario}");
    for (answer, wanted) in answers.iter().zip(wanted) {
        for pair in wanted.split(' ') {
            let (field, value) = pair.split_once('=').expect("a pair");
            let is = answer[field].as_str().map_or(answer[field].to_string(), str::to_owned);
            assert_eq!(is, value, "{field} of {answer}\n{scenario}");
        }
    }
}

#[track_caller]
fn assert_msg(answer: &Value, words: &str) {
    let text = answer["error_msg"].as_str().unwrap_or_default();
    assert!(text.contains(words), "no {words:?} in {answer}");
}

const MOUNTED: &str = "status=success physically_mounted=true reused_existing=false";
const JOINED: &str = "status=success physically_mounted=false reused_existing=true";
const RELEASED: &str = "status=success unmounted=false active_mounts_remaining=1";
const UNMOUNTED: &str =
    "status=success unmounted=true unmount_method=umount active_mounts_remaining=0";

#[test]
fn two_jobs_share_an_export_by_version_3_and_the_last_unmounts_it() {
    let scenario = works().scenario("v3");
    let listed = "target=t3 type=nfs fstype=nfs source=10.0.0.9:/mnt/root/export \
                  export=10.0.0.9:/mnt/root/export secret_ref=null pid=null";
    assert_answers(&scenario, &[MOUNTED, JOINED, listed, RELEASED, UNMOUNTED]);
    assert_eq!(scenario.said("server"), ["whole"], "what a job writes is at the server");
    let kernel = scenario.said("kernel");
    assert_eq!(kernel.len(), 2, "mounted while a job uses it, and no longer: {scenario}");
    for (line, option) in kernel.iter().zip(["vers=3,", "hard,"]) {
        assert!(line.starts_with("rw,nosuid,nodev,noexec"), "{line}");
        assert!(line.contains(option), "{line}");
    }
    assert_eq!(scenario.said("left"), ["/mnt/base:", "", "/run/dms/mounts:"], "{scenario}");
}

#[test]
fn a_daemon_that_mount_has_started_does_not_keep_the_target() {
    let scenario = works().scenario("v3");
    // Started by the first mount; had it the act lock, the later ones would have been busy.
    assert_eq!(scenario.said("statd").len(), 1, "{scenario}");
}

#[test]
fn an_export_that_is_not_there_or_not_for_us_is_refused_and_nothing_is_left() {
    for name in ["not_exported", "denied"] {
        let scenario = works().scenario(name);
        assert_answers(&scenario, &["status=error error_code=mount"]);
        assert_msg(&scenario.answers()[0], "NFS mount failed: mount.nfs: access denied by server");
        assert!(scenario.said("kernel").is_empty(), "{scenario}");
    }
    let left = works().scenario("not_exported");
    assert_eq!(left.said("left"), ["/mnt/base:", "", "/run/dms/mounts:"], "{left}");
}

#[test]
fn an_export_that_root_may_not_read_is_alive() {
    let scenario = works().scenario("squash");
    assert!(scenario.said("look")[0].contains("Permission denied"), "{scenario}");
    assert_answers(&scenario, &[MOUNTED, JOINED, RELEASED, UNMOUNTED]);
    assert!(scenario.said("clean").is_empty(), "clean touches no live mount: {scenario}");
    assert_eq!(scenario.said("kernel").len(), 1, "{scenario}");
}

#[test]
fn an_export_that_was_made_anew_is_mounted_anew() {
    let scenario = works().scenario("stale");
    assert!(scenario.said("look")[0].contains("Stale file handle"), "{scenario}");
    assert_answers(&scenario, &[MOUNTED, MOUNTED, RELEASED, UNMOUNTED]);
    assert_eq!(scenario.said("server"), ["anew"], "{scenario}");
    let log = scenario.said("log").join("\n");
    assert!(log.contains("warning: the export of st is gone: mounting /mnt/base/st anew"), "{log}");
}

#[test]
fn an_export_that_its_server_does_not_know_for_a_moment_is_not_unmounted() {
    let scenario = works().scenario("stale_once");
    assert!(scenario.said("look")[0].contains("Stale file handle"), "{scenario}");
    assert_eq!(scenario.said("asleep"), ["5"], "{scenario}");
    assert_answers(&scenario, &[MOUNTED, JOINED, UNMOUNTED]);
}

#[test]
fn clean_unmounts_what_is_of_no_use() {
    let scenario = works().scenario("stale_clean");
    assert_eq!(scenario.said("clean"), ["sc: its export was gone: unmounted"], "{scenario}");
    assert!(scenario.said("kernel").is_empty(), "{scenario}");
    assert_answers(&scenario, &[MOUNTED, "status=success unmounted=true"]);
}

#[test]
fn the_documented_options_are_in_force_by_version_4() {
    let scenario = works().scenario("v4");
    let kernel = scenario.said("kernel");
    assert!(kernel[0].starts_with("rw,nosuid,nodev,noexec"), "{scenario}");
    assert!(kernel[0].contains(" nfs4 nas:/export "), "{scenario}");
    for option in ["sync", "vers=4.2", "hard", "timeo=600", "retrans=2", "proto=tcp"] {
        assert!(kernel[0].contains(option), "no {option}: {scenario}");
    }
    assert_eq!(scenario.said("server"), ["8388608"], "{scenario}");
}

#[test]
fn another_export_for_the_same_target_is_refused_and_other_options_are_told() {
    let scenario = works().scenario("v4");
    assert_answers(&scenario, &[MOUNTED, "status=error error_code=mount", JOINED]);
    let words = "target t4 is mounted from nas:/export, not from nas:/e";
    assert_msg(&scenario.answers()[1], words);
    let log = scenario.said("log").join("\n");
    assert!(log.contains("with other options than ro,vers=4.2,nosuid,nodev,noexec"), "{log}");
    let kernel = scenario.said("kernel");
    assert_eq!(kernel[0], kernel[1], "it was touched");
}

#[test]
fn the_operators_commands_know_that_there_is_no_daemon() {
    let scenario = works().scenario("v4");
    let ps = scenario.said("ps");
    let row: Vec<&str> = ps[1].split_whitespace().collect();
    assert_eq!(row, ["t4", "nfs", "-", "-", "-", "-", "-", "yes", "/mnt/base/t4"], "{scenario}");
    assert_eq!(scenario.said("kill"), ["t4: an NFS mount has no daemon: nothing was ended"]);
    assert!(scenario.said("clean").is_empty(), "{scenario}");
    let check = scenario.said("check");
    assert!(check.contains(&"ok: NFS targets by /usr/sbin/mount.nfs"), "{scenario}");
}

#[test]
fn reconcile_mounts_again_with_the_options_of_the_journal() {
    let before = works().scenario("v4");
    let scenario = works().scenario("reconcile");
    assert_answers(&scenario, &[MOUNTED]);
    assert_eq!(scenario.said("kernel"), before.said("kernel")[..1], "{scenario}");
    let again = scenario.said("again");
    assert!(!again.iter().any(|line| line.starts_with('{')), "all is as it should be: {again:?}");
}

#[test]
fn a_mount_without_a_record_is_known_by_its_export() {
    let scenario = works().scenario("lost_record");
    let listed = "target=null source=nas:/export fstype=nfs4";
    let retained = "unmounted=false active_mounts_remaining=2";
    assert_answers(&scenario, &[listed, JOINED, retained, RELEASED, UNMOUNTED]);
    assert!(scenario.said("record")[0].contains(r#""state":"mounted""#), "{scenario}");
    assert!(scenario.said("kernel").is_empty(), "{scenario}");
}

#[test]
fn another_export_at_the_path_is_an_error_and_is_left_alone() {
    let scenario = works().scenario("foreign");
    let wanted = ["status=error error_code=mount", "status=error error_code=unmount"];
    assert_answers(&scenario, &wanted);
    for answer in scenario.answers() {
        assert_msg(&answer, "nas:/mnt/root/e (nfs) is mounted at /mnt/base/f; it was not touched");
    }
    assert_eq!(scenario.said("kernel").len(), 1, "{scenario}");
}

#[test]
fn the_originals_requests_get_the_originals_answers() {
    let scenario = works().scenario("original");
    let answers = scenario.answers();
    assert_eq!(answers.len(), ORIGINAL.len(), "{scenario}");
    for (exchange, answer) in exchanges().iter().zip(&answers) {
        let wanted = exchange["reply"]["body"].as_str().expect("it was answered");
        let wanted: Value =
            serde_json::from_str(&wanted.replace(BASE.0, BASE.1)).expect("it is JSON");
        for field in ["status", "error_msg", "success_msg"] {
            assert_eq!(answer[field], wanted[field], "{}: {answer}", exchange["name"]);
        }
    }
    assert_eq!(scenario.said("left"), ["0"], "nothing is left mounted");
}

#[test]
fn a_server_that_is_gone_does_not_keep_the_list_waiting() {
    let scenario = goes().scenario("hung_list");
    let wanted = ["target=idle type=nfs", "target=used type=nfs", "target=soft type=nfs"];
    assert_answers(&scenario, &wanted);
    assert!(scenario.took()[0] < 5.0, "{scenario}");
}

#[test]
fn a_mount_whose_server_is_gone_is_a_timeout_and_is_not_touched() {
    let scenario = goes().scenario("hung_mount");
    assert_answers(&scenario, &["status=error error_code=timeout"]);
    assert_msg(&scenario.answers()[0], "does not answer; it was not touched");
    assert!(scenario.took()[0] < 20.0, "it may take 3 s: {scenario}");
    assert_eq!(scenario.said("kernel").len(), 1, "{scenario}");
}

#[test]
fn an_input_error_of_a_soft_mount_is_a_server_that_does_not_answer() {
    let scenario = goes().scenario("soft_mount");
    assert_answers(&scenario, &["status=error error_code=timeout"]);
    assert_msg(&scenario.answers()[0], "the mount of soft at /mnt/base/soft does not answer");
}

#[test]
fn a_mount_that_does_not_end_is_killed_and_does_not_appear_later() {
    let scenario = goes().scenario("hung_new");
    assert_answers(&scenario, &["status=error error_code=timeout"]);
    assert_msg(&scenario.answers()[0], "timeout: mount of nas:/mnt/root/export at /mnt/base/late");
    assert!(scenario.took()[0] < 20.0, "it may take 3 s: {scenario}");
    assert!(!scenario.said("left").contains(&"late"), "a record is left: {scenario}");
    let alive = scenario.said("process");
    assert!(!alive.iter().any(|line| line.contains("/mnt/base/late")), "{alive:?}");
    // The server is back: nothing has come by itself, and the target is free.
    let back = goes().scenario("back");
    assert_answers(&back, &[MOUNTED, UNMOUNTED]);
    assert_eq!(back.said("kernel").len(), 1, "{back}");
}

#[test]
fn an_unmount_whose_server_is_gone_goes_as_far_as_it_must_and_says_so() {
    // The first one has a file system with the second: to force it would end that one's jobs' calls.
    for (name, method) in [("hung_idle", "lazy"), ("hung_used", "lazy"), ("hung_soft", "force")] {
        let scenario = goes().scenario(name);
        let wanted = format!("status=success unmounted=true unmount_method={method}");
        assert_answers(&scenario, &[&wanted]);
        assert!(scenario.took()[0] < 25.0, "it may take 8 s: {scenario}");
        assert!(scenario.said("kernel").is_empty(), "{scenario}");
    }
    let used = goes().scenario("hung_used").said("log").join("\n");
    assert!(used.contains("target is busy. (in use by pid"), "{used}");
}

#[test]
fn an_unmount_whose_server_is_gone_ends_nothing_that_a_job_of_another_target_waits_for() {
    let scenario = goes().scenario("hung_neighbour");
    let lazily = "status=success unmounted=true unmount_method=lazy";
    assert_answers(&scenario, &[MOUNTED, MOUNTED, lazily, UNMOUNTED]);
    assert!(scenario.said("kernel").is_empty(), "{scenario}");
    assert_eq!(scenario.said("waits"), ["1"], "{scenario}");
    assert_eq!(scenario.said("job"), ["0"], "its write was to wait: {scenario}");
    assert_eq!(scenario.said("server"), ["late"], "{scenario}");
}

/// What the pipeline adds to mount(8) and umount(8), in milliseconds a pair: of so many pairs and of one,
/// so that its start does not count.
#[test]
#[ignore = "to be measured alone: make bench-nfs"]
fn a_mount_and_an_unmount_take_little_more_than_by_hand() {
    let guest = Guest::run("nfs.sh", &[("DMS_PART", "speed")]);
    let said = guest.scenario("speed").to_string();
    let times = |who: &str, count: &str| -> Vec<f64> {
        let begin = format!("{who}: {count} ");
        let rows = said.lines().filter_map(|line| line.strip_prefix(&begin));
        rows.map(|row| {
            let numbers: Vec<f64> = row.split(' ').filter_map(|word| word.parse().ok()).collect();
            numbers[numbers.len() - 1] - numbers[numbers.len() - 2]
        })
        .collect()
    };
    let pair = |who: &str| -> Vec<f64> {
        let mut pairs: Vec<f64> = (times(who, "16").iter().zip(times(who, "1")))
            .map(|(many, one)| (many - one) / 15.0 * 1e3)
            .collect();
        pairs.sort_by(f64::total_cmp);
        pairs
    };
    let (ours, theirs) = (pair("pipeline"), pair("hand"));
    let told = format!("{said}\nms a pair: pipeline {ours:.0?}, by hand {theirs:.0?}");
    writeln!(std::io::stderr(), "{told}").expect("somebody reads it");
    assert_eq!((ours.len(), theirs.len()), (3, 3), "{said}");
    assert_eq!(said.matches("pipeline: 16 32 ").count(), 3, "{said}");
    // Ten for each of the two.
    assert!(ours[1] <= theirs[1] + 20.0, "{ours:.0?} {theirs:.0?}");
}
