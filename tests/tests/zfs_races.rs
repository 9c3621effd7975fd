//! A scan and a job on one pool at once: what they did to each other before, and what they do not do
//! now.

use dms_tests::{Filter, Lab, Run, ZfsHost, is_long_run, run};

/// A shell that does what it is told, and says how that ended.
fn shell(host: &ZfsHost<'_>) -> Filter {
    let script = "while read -r line; do eval \"$line\" >/dev/null 2>&1; echo $?; done";
    Filter::start(&mut host.command("sh", &["-c", script]))
}

fn tell(shell: &mut Filter, line: &str) -> i64 {
    shell.tell_line(line.as_bytes());
    shell.answer().as_i64().expect("an exit status")
}

#[test]
fn without_the_lock_and_the_ledger_a_scan_and_a_job_fail_as_they_were_known_to() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let (list, export) = ("zpool list tank", "zpool export tank");
    let import = format!("zpool import -d {} -R /mnt tank", lab.path("dev").display());
    let (mut job, mut scan) = (shell(&host), shell(&host));
    // Both find that it is not there, and both import it.
    assert!(tell(&mut job, list) != 0 && tell(&mut scan, list) != 0);
    assert_eq!(tell(&mut scan, &import), 0);
    assert_ne!(tell(&mut job, &import), 0, "it could be imported twice");
    assert_eq!(tell(&mut scan, export), 0);
    // The job finds the scan's import, and the scan takes it away.
    assert_ne!(tell(&mut scan, list), 0);
    assert_eq!(tell(&mut scan, &import), 0);
    assert_eq!(tell(&mut job, list), 0);
    assert_eq!(tell(&mut scan, export), 0);
    assert_ne!(tell(&mut job, "zfs create tank/job"), 0, "there was no pool");
}

/// zfs-fuse calls a dataset busy for a moment after it has mounted it.
const CREATE_AND_DESTROY: &str = "zfs create tank/dROUND && while ! zfs destroy tank/dROUND && zpool list tank; do :; done && \
     zpool list tank";

#[test]
fn with_them_a_scan_and_a_job_do_not_hurt_each_other() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let rounds = if is_long_run() { 200 } else { 6 };
    let work = |job: i32, script: &str| {
        let mut filter = Filter::start(&mut host.pipeline());
        let mut shell = shell(&host);
        for round in 0..rounds {
            let answer = filter.ask(&host.request("mount", job, "tank"));
            assert_eq!(answer["status"], "success", "round {round} of job {job}: {answer}");
            let status = tell(&mut shell, &script.replace("ROUND", &round.to_string()));
            assert_eq!(status, 0, "round {round} of job {job}: the pool was gone");
            let answer = filter.ask(&host.request("unmount", job, "tank"));
            assert_eq!(answer["status"], "success", "round {round} of job {job}: {answer}");
        }
        filter.end();
        shell.end();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(1, CREATE_AND_DESTROY));
        scope.spawn(|| work(2, "zpool status tank && zfs list -r tank"));
    });
    assert_eq!(host.pools(), [] as [String; 0]);
    assert_eq!(lab.users("t"), [] as [i64; 0]);
}

/// A script of examples/, with the options that a pool on files needs.
fn example(host: &ZfsHost<'_>, lab: &Lab, name: &str, rest: &[&str]) -> Run {
    let script = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let options = format!("device_dir={}", lab.path("dev").display());
    let mut command = host.command(&script, &[&["-o", &options, "t", "tank"], rest].concat());
    run(command.env("DMS_LOCK_TIMEOUT", "20"), b"")
}

#[test]
fn the_scripts_import_what_is_not_there_and_export_only_what_nobody_else_uses() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    let scan = example(&host, &lab, "scan-pool", &[]);
    assert!(scan.expect(0).stdout.starts_with("tank\t"), "{scan}");
    assert_eq!(host.pools(), [] as [String; 0]);
    host.done("mount", 1, "tank");
    example(&host, &lab, "scan-pool", &[]).expect(0);
    // A lock within the same lock.
    example(&host, &lab, "try-pool", &[]).expect(0);
    assert_eq!((host.pools().len(), lab.users("t")), (1, vec![1]));
    let datasets = host.run("zfs", &["list", "-H", "-o", "name"]);
    assert_eq!(datasets.expect(0).stdout, "tank\n", "{datasets}");
    host.done("unmount", 1, "tank");
    example(&host, &lab, "try-pool", &[]).expect(0);
    let failed = example(&host, &lab, "with-pool", &["sh", "-c", "exit 7"]);
    failed.expect(7);
    assert_eq!((host.pools().len(), lab.users("t")), (0, vec![]));
    // Somebody else's import is looked at, and left.
    let devices = lab.path("dev").display().to_string();
    host.run("zpool", &["import", "-d", &devices, "tank"]).expect(0);
    let scan = example(&host, &lab, "scan-pool", &[]);
    assert!(scan.expect(0).stdout.starts_with("tank\t"), "{scan}");
    assert_eq!(host.pools(), ["tank\t-"]);
}

#[test]
fn scripts_side_by_side_wait_for_each_other() {
    let lab = Lab::new();
    let host = ZfsHost::start(&lab, "host-a");
    host.make_pool("tank");
    std::thread::scope(|scope| {
        for name in ["try-pool", "scan-pool", "try-pool", "scan-pool"] {
            let (lab, host) = (&lab, &host);
            scope.spawn(move || example(host, lab, name, &[]).expect(0).code);
        }
    });
    assert_eq!(host.pools(), [] as [String; 0]);
}
