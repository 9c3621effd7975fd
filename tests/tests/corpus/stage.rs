//! A node, and witnesses of all that it must not do.
//!
//! It runs in a mount namespace of its own, where stand-ins lie over the programs that mount, and
//! under strace, which writes down every program that is started.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use dms_tests::{Filter, Lab, Witness, answer, run, script};
use serde_json::Value;

use crate::started;

/// Of every request that has one.
pub(crate) const TOKEN: &str = "gAAAA-the-token-of-this-test";

/// A secret of the key manager.
const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

const SCRIPT: &str = "cd \"$1\"
    mount --bind stand-ins/mount.nfs /usr/sbin/mount.nfs
    mount -t tmpfs tmpfs /usr/local/sbin
    cp stand-ins/s3fs stand-ins/sudo /usr/local/sbin/
    cat /proc/self/mountinfo >before
    strace -f --seccomp-bpf -qq -s 4000 -e trace=execve -o started \"$2\" 2>log || :
    cat /proc/self/mountinfo >after";

pub(crate) struct Stage {
    lab: Lab,
    filter: Option<Filter>,
    /// The key manager, and somebody else.
    here: Witness,
    there: Witness,
    /// All that there was outside the base before.
    decoy: BTreeMap<String, String>,
}

impl Stage {
    #[track_caller]
    pub(crate) fn start(program: &'static str) -> Stage {
        let lab = Lab::new();
        let (here, there) = (Witness::saying(answer(404, "")), Witness::saying(answer(404, "")));
        prepare(&lab);
        let root = lab.path("").display().to_string();
        let mut command =
            lab.command("unshare", &["-m", "sh", "-ec", SCRIPT, "sh", &root, program]);
        command.env("DMS_BARBICAN_URL", here.url()).env("DMS_REQUEST_TIMEOUT", "5");
        command.env("DMS_LOG_LEVEL", "DEBUG");
        // As OpenStack's services have it, where it is a pipeline.
        if program == "dms-pipeline" {
            let [bin, conf] = started::ROOTWRAP;
            command.env("DMS_ROOTWRAP_BIN", bin).env("DMS_ROOTWRAP_CONF", conf);
        }
        let decoy = seen(&lab);
        let filter = Some(Filter::start(&mut command));
        Stage { lab, filter, here, there, decoy }
    }

    /// Sends a line, and returns its one answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &[u8]) -> Value {
        let filter = self.filter.as_mut().expect("it runs until the end");
        filter.tell_line(line);
        filter.answer()
    }

    /// Words between two @ in a line, and what they stand for.
    pub(crate) fn words(&self) -> [(&'static str, String); 9] {
        let path = |name: &str| self.lab.path(name).display().to_string();
        let head = "\"host\":\"compute-01\",\"jobid\":1,\"keystone_token\":";
        [
            ("@HEAD@", format!("{head}\"{TOKEN}\"")),
            ("@TOKEN@", TOKEN.to_owned()),
            ("@GOOD@", format!("file://{}", path("secrets/good"))),
            ("@KMS@", format!("{}/v1/secrets/{ID}", self.here.url())),
            ("@HERE@", self.here.url()),
            ("@THERE@", self.there.url()),
            ("@BASE@", path("mnt")),
            ("@SECRETS@", path("secrets")),
            ("@DECOY@", path("decoy")),
        ]
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        self.words().iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// The ports of the key manager and of somebody else.
    pub(crate) fn ports(&self) -> (u16, u16) {
        (self.here.port(), self.there.port())
    }

    /// Ends it, and asks the witnesses.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.filter.take().expect("it runs until here").end();
        let read = |name: &str| fs::read(self.lab.path(name)).expect("it was written");
        let text = |name: &str| String::from_utf8_lossy(&read(name)).into_owned();
        let lines = |name: &str| text(name).lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (before, after) = (lines("before"), lines("after"));
        // What others have mounted goes away with the directory below it, also here.
        let ours = self.lab.path("").display().to_string();
        let mut changed: Vec<_> = before.difference(&after).filter(|l| l.contains(&ours)).collect();
        changed.extend(after.difference(&before));
        assert!(changed.is_empty(), "something is mounted, or unmounted: {changed:#?}");
        assert_eq!(self.there.connections(), 0, "somebody else was asked");
        let asked = self.here.heard();
        let mut asked = asked.lines().filter(|line| line.starts_with("GET "));
        let wanted = format!("GET /v1/secrets/{ID} HTTP/1.1");
        assert!(asked.all(|line| line == wanted), "{}", self.here.heard());
        let log = text("log");
        for word in [TOKEN, self.lab.secrets()[0], self.lab.secrets()[1]] {
            assert!(!log.contains(word), "{word} is in the log");
        }
        let programs = started::read(&text("started"));
        assert!(!programs.is_empty(), "strace has seen nothing");
        for program in &programs {
            let may_be = started::check(program, &self.lab.path("mnt"));
            may_be.unwrap_or_else(|why| panic!("{why}: {program:?}"));
        }
        assert_eq!(seen(&self.lab), self.decoy, "something was touched outside the base");
        let left: Vec<_> = fs::read_dir(self.lab.path("mnt")).expect("it is there").collect();
        assert_eq!(left.len(), 1, "something was left in the base: {left:?}");
        let records = fs::read_dir(self.lab.path("run/mounts")).expect("it is there").count();
        assert_eq!(records, 0, "there are records of mounts");
    }
}

/// What is not to be touched, ways that lead there, and the stand-ins.
fn prepare(lab: &Lab) {
    // Whoever reads one of these mounts with it.
    let private = |name: &str, mode: u32| {
        fs::copy(lab.path("secrets/good"), lab.path(name)).expect("room for it");
        fs::set_permissions(lab.path(name), Permissions::from_mode(mode)).expect("it is ours");
    };
    fs::create_dir_all(lab.path("decoy/sub/deep")).expect("room for it");
    private("decoy/secret", 0o600);
    private("decoy/sub/file", 0o644);
    private("secrets/open", 0o644);
    for (to, from) in [
        ("decoy", "mnt/link"),
        ("decoy/secret", "secrets/link"),
        ("decoy", "secrets/dir-link"),
        ("decoy/sub", "decoy/link"),
    ] {
        symlink(lab.path(to), lab.path(from)).expect("a fresh name");
    }
    run(Command::new("mkfifo").arg(lab.path("secrets/fifo")), b"").expect(0);
    fs::create_dir(lab.path("stand-ins")).expect("room for it");
    for name in ["mount.nfs", "s3fs", "sudo"] {
        script(&lab.path("stand-ins").join(name), "exit 32");
    }
}

/// All outside the base and what the node writes itself: each file, and all that changes when it is
/// touched.
fn seen(lab: &Lab) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in ["decoy", "secrets", "bucket-root", "stand-ins"] {
        look(&lab.path(name), &mut found);
    }
    found
}

fn look(path: &Path, found: &mut BTreeMap<String, String>) {
    let about = fs::symlink_metadata(path).expect("it is there");
    let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
    let is = (about.ino(), about.mode(), about.uid(), about.nlink(), about.size());
    found.insert(path.display().to_string(), format!("{is:?} {times:?}"));
    if about.is_dir() {
        for entry in fs::read_dir(path).expect("it can be read").flatten() {
            look(&entry.path(), found);
        }
    }
}
