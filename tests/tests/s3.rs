//! S3 targets under their jobs: nothing that was written is lost, and a hung daemon harms nobody
//! else.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Held, Lab, eventually, is_long_run};
use nix::sys::signal::Signal;
use serde_json::json;

/// Data of so many MiB, each of them another.
fn data(seed: u32, length: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let block: Vec<u8> = (0..1 << 18).flat_map(|_| next().to_le_bytes()).collect();
    let mut data = Vec::with_capacity((length as usize) << 20);
    for number in 0..length {
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&block[4..]);
    }
    data
}

#[test]
fn fifty_megabytes_are_in_the_bucket_when_the_last_unmount_has_answered() {
    let lab = Lab::new();
    for round in 0..if is_long_run() { 100 } else { 20 } {
        lab.mount(1, "t1");
        let written = data(round + 1, 50);
        fs::write(lab.mount_point("t1").join("backup"), &written).expect("it is mounted");
        assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
        let stored = fs::read(lab.object("backup")).expect("it is in the bucket");
        assert!(stored == written, "round {round}: {} bytes of {}", stored.len(), written.len());
        lab.assert_gone("t1");
    }
}

#[test]
fn a_daemon_that_stands_still_keeps_its_data_and_everybody_gets_an_answer() {
    let lab = Lab::new();
    lab.mount(1, "t1");
    // A process of its own: whoever starts another with such a file open waits for the daemon.
    let script = "exec 3>\"$0\"; head -c 8388608 /dev/zero >&3; echo held; read x";
    let file = lab.mount_point("t1").join("backup").display().to_string();
    let job = Held::start(&mut lab.command("sh", &["-c", script, &file]));
    let daemon = lab.daemons("t1").remove(0);
    daemon.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let answer = lab.send(&lab.request("mount", 2, "t1"));
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    let answer = lab.send(&lab.request("unmount", 1, "t1"));
    assert_eq!(answer["error_code"], "timeout", "{answer}");
    for command in [&["list"][..], &["ps", "t1"]] {
        lab.feed("dms-mount", command, "").expect(0);
    }
    lab.feed("dms-ledger", &["status", "--job-id", "1", "--target-id", "t1"], "").expect(0);
    lab.mount(3, "t2");
    lab.unmount(3, "t2");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(lab.daemons("t1").len(), 1, "it was killed");

    daemon.signal(Signal::SIGCONT);
    job.release();
    assert_eq!(lab.unmount(1, "t1")["unmounted"], true);
    assert_eq!(fs::read(lab.object("backup")).expect("it is in the bucket"), vec![0; 8 << 20]);
}

#[test]
fn thirty_targets_are_mounted_side_by_side_and_one_that_hangs_delays_none_of_them() {
    let lab = Lab::new();
    // A server that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    let hung = lab.secret("hung", |secret| secret["endpoint_url"] = json!(url));
    let mut request = lab.request("mount", 99, "hung");
    request["backup_target"]["secret_ref"] = json!(hung);
    thread::scope(|scope| {
        let hanging = scope.spawn(|| {
            let answer = lab.send(&request);
            assert_eq!(answer["status"], "error", "{answer}");
            Instant::now()
        });
        eventually("it hangs", || !lab.daemons("hung").is_empty());
        let jobs: Vec<_> = (0..30)
            .map(|job| {
                scope.spawn({
                    let lab = &lab;
                    move || lab.mount(job, &format!("t{job}"))
                })
            })
            .collect();
        for job in jobs {
            assert_eq!(job.join().expect("it is mounted")["physically_mounted"], true);
        }
        let all_done = Instant::now();
        assert!(hanging.join().expect("it is answered") > all_done, "they waited for the one");
    });
    for job in 0..30 {
        lab.unmount(job, &format!("t{job}"));
    }
}
