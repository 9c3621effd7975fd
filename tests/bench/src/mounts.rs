//! What a mount takes beyond what its program takes: s3fs, started by hand until its first I/O is
//! answered, beside the same through the pipeline.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dms_tests::{Filter, Lab, mount_source};
use serde_json::Value;

use crate::sample::{Sample, in_turns, timed};
use crate::stage::{node, request, succeed};
use crate::table::{Limit, Table};

const ROUNDS: usize = 20;
const CROWD: usize = 30;

/// s3fs as a script would start it, with the options of dms-mount.
struct ByHand {
    child: Child,
    path: PathBuf,
}

impl ByHand {
    fn start(lab: &Lab, name: &str) -> ByHand {
        let secret = fs::read_to_string(lab.path("secrets/good")).expect("the lab has made it");
        let secret: Value = serde_json::from_str(&secret).expect("it is JSON");
        let word = |key: &str| secret[key].as_str().unwrap_or_default().to_owned();
        let path = lab.path("mnt").join(name);
        fs::create_dir(&path).expect("a fresh name");
        let options = format!(
            "url={},use_path_request_style,endpoint=us-east-1,retries=1,fsname=hand-{name}",
            word("endpoint_url")
        );
        let child = Command::new("s3fs")
            .args(["bucket".as_ref(), path.as_os_str()])
            .args(["-f", "-o", &options])
            .env("AWSACCESSKEYID", word("access_key"))
            .env("AWSSECRETACCESSKEY", word("secret_key"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        ByHand { child, path }
    }

    /// Until it is mounted and has asked its server for a name that is not there.
    fn wait(&self) {
        while mount_source(&self.path).is_none() {
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(fs::symlink_metadata(self.path.join(".is-it-there")).is_err());
    }

    /// Unmounted, and the program ended.
    fn end(mut self) {
        let umount = Command::new("umount").arg(&self.path).status();
        assert!(umount.is_ok_and(|end| end.success()), "umount {}", self.path.display());
        let _ = self.child.wait();
        fs::remove_dir(&self.path).expect("nothing is mounted on it");
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn measure(table: &mut Table) {
    let lab = node(None);
    one(table, &lab);
    crowd(table, &lab);
}

fn one(table: &mut Table, lab: &Lab) {
    let mut pipeline = Filter::start(&mut lab.pipeline_command());
    let (mut ends, mut hand_ends) = (Vec::new(), Vec::new());
    let mut number = 0;
    let [ours, theirs] = in_turns(
        ROUNDS,
        &mut [
            &mut || {
                let time = timed(|| succeed(&pipeline.ask(&request(lab, "mount", 2, "one"))));
                let unmount = request(lab, "unmount", 2, "one");
                ends.push(timed(|| succeed(&pipeline.ask(&unmount))));
                time
            },
            &mut || {
                number += 1;
                let mut by_hand = None;
                let time = timed(|| {
                    let started = ByHand::start(lab, &format!("hand-{number}"));
                    started.wait();
                    by_hand = Some(started);
                });
                hand_ends.push(timed(|| by_hand.take().map(ByHand::end)));
                time
            },
        ],
    );
    pipeline.end();
    let (hand, hand_end) = ("s3fs by hand until its first I/O", "umount, until s3fs has ended");
    let ends: Sample = ends.into_iter().collect();
    let hand_ends: Sample = hand_ends.into_iter().collect();
    for (what, ours, against, theirs) in
        [("mount", &ours, hand, &theirs), ("unmount", &ends, hand_end, &hand_ends)]
    {
        let text = format!("{what} of an S3 target, running pipeline");
        table.ratio(&text, ours, (against, theirs), Limit::None);
        let more = ours.median() - theirs.median();
        table.figure("  what that is more", more, "ms", Limit::AtMost(10.0));
    }
}

/// All at once: each target by a pipeline of its own that runs already.
fn crowd(table: &mut Table, lab: &Lab) {
    let mut pipelines: Vec<Filter> =
        (0..CROWD).map(|_| Filter::start(&mut lab.pipeline_command())).collect();
    let mut all = |action: &str| {
        timed(|| {
            for (number, pipeline) in pipelines.iter_mut().enumerate() {
                pipeline.tell(&request(lab, action, 2, &format!("crowd-{number}")));
            }
            pipelines.iter_mut().for_each(|pipeline| succeed(&pipeline.answer()));
        })
    };
    let mut unmounts = Vec::new();
    let mut round = 0;
    let [ours, theirs] = in_turns(
        5,
        &mut [
            &mut || {
                let time = all("mount");
                unmounts.push(all("unmount"));
                time
            },
            &mut || {
                round += 1;
                let mut hands = Vec::new();
                let time = timed(|| {
                    let start = |number| ByHand::start(lab, &format!("round-{round}-{number}"));
                    hands = (0..CROWD).map(start).collect::<Vec<ByHand>>();
                    hands.iter().for_each(ByHand::wait);
                });
                hands.into_iter().for_each(ByHand::end);
                time
            },
        ],
    );
    pipelines.into_iter().for_each(Filter::end);
    let what = format!("{CROWD} S3 targets mounted at once, until the last is there");
    table.ratio(
        &what,
        &ours,
        ("as many s3fs started together by hand", &theirs),
        Limit::AtMost(1.3),
    );
    let unmounts: Sample = unmounts.into_iter().collect();
    table.figure("  unmounted at once", unmounts.median(), "ms", Limit::None);
}
