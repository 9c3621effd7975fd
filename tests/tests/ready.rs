//! A mount is there as soon as its program can be used. By itself: what other tests of the same
//! process write would be flushed by the programs that this one starts.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dms_tests::{Filter, Lab};
use serde_json::Value;

/// s3fs as a user would start it; how long it takes until it can be used.
fn by_hand(lab: &Lab, path: &Path) -> (Duration, Child) {
    let secret = fs::read(lab.path("secrets/good")).expect("it is there");
    let secret: BTreeMap<String, Value> = serde_json::from_slice(&secret).expect("it is JSON");
    let text = |name: &str| secret[name].as_str().unwrap_or_default().to_owned();
    let before = fs::metadata(path).map(|about| about.dev());
    let start = Instant::now();
    let child = Command::new("s3fs")
        .args(["-f", "bucket"])
        .arg(path)
        .args(["-o", "use_path_request_style,endpoint=us-east-1,nosuid,nodev"])
        .arg("-o")
        .arg(format!("url={}", text("endpoint_url")))
        .env("AWS_ACCESS_KEY_ID", text("access_key"))
        .env("AWS_SECRET_ACCESS_KEY", text("secret_key"))
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .expect("it is installed");
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev());
    let bare = before.expect("it is there");
    // As soon as I/O reaches the server: a name that is not there has to be asked for.
    while device(path).map_or(true, |now| now == bare)
        || path
            .join("no-such-name")
            .symlink_metadata()
            .is_err_and(|why| why.raw_os_error() != Some(2))
    {
        thread::sleep(Duration::from_micros(200));
    }
    (start.elapsed(), child)
}

#[test]
fn a_mount_is_ready_as_soon_as_its_program_is() {
    let lab = Lab::new();
    let mut node = Filter::start(&mut lab.command("dms-mount", &[]));
    let path = lab.path("by-hand");
    fs::create_dir_all(&path).expect("room for it");
    let (mut theirs, mut ours) = (Duration::MAX, Duration::MAX);
    // In turns, and the best of each: others use this machine, too.
    for _ in 0..15 {
        let (taken, mut child) = by_hand(&lab, &path);
        theirs = theirs.min(taken);
        let umount = Command::new("umount").arg(&path).status().expect("it is installed");
        assert!(umount.success() && child.wait().is_ok_and(|status| status.success()));
        let start = Instant::now();
        let answer = node.ask(&lab.request("mount", 1, "t1"));
        ours = ours.min(start.elapsed());
        assert_eq!(answer["physically_mounted"], true, "{answer}");
        assert_eq!(node.ask(&lab.request("unmount", 1, "t1"))["unmounted"], true);
    }
    node.end();
    let _ = writeln!(std::io::stderr().lock(), "ready: s3fs {theirs:?}, dms-mount {ours:?}");
    assert!(ours < theirs + Duration::from_millis(20), "{ours:?}, and s3fs itself {theirs:?}");
}
