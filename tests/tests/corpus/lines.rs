//! The corpus: lines that somebody has written, and the same few requests with every hostile word in
//! every field that could take it.

use dms_tests::{HOSTILE_EXPORTS, HOSTILE_OPTIONS, is_long_run};
use serde_json::{Value, json};

use crate::stage::Stage;

/// A line, and the error code that it gets from a node and from a pipeline.
pub(crate) struct Line {
    pub(crate) text: Vec<u8>,
    pub(crate) code: String,
    pub(crate) piped: String,
}

/// Ids that are no file name, or would leave their directory.
#[rustfmt::skip]
const BAD_IDS: [&str; 30] = [
    "", ".", "..", "...", "../x", "../../../../tmp/x", "a/b", "a/../b", "/", "/etc", "./a", ".hidden",
    "t1/", "t1/../../decoy", "a\0b", "\0", "t1\0.lock", "a\nb", "a\rb", "a\tb", "\u{1b}[2J", "\u{7}",
    "\u{7f}", "\u{85}", "\u{9b}1m", " ", "a ", "..\0", "t1\0/../../decoy", "a\u{a0}/b",
];

/// Ids that are a file name, and look like something else.
#[rustfmt::skip]
const ODD_IDS: [&str; 40] = [
    "-rf", "--help", "-o", "-", "--", "-obind", "$(reboot)", "`id`", "${HOME}", "; rm -rf ~", "a,suid",
    "a,allow_other", "a b", "T1", "t1.pid", "t1.lock", "t1.log.1", "*", "?", "[a-z]", "{a,b}", "%s%n",
    "%2e%2e%2f", "\\..\\", "'", "\"", "a|b", "a&b", "a>b", "a=b", "dms:t2", "\u{ff0e}\u{ff0e}\u{ff0f}etc",
    "\u{202e}dip.1t", "\u{2212}o", "\u{200b}", "\u{2028}x", "\u{feff}t1", "\u{e9}", "e\u{301}", "\u{1f980}",
];

/// Paths that are not below the base, or not spelled in the one way; `@BASE@` is filled in.
#[rustfmt::skip]
const PATHS: [&str; 44] = [
    "/", "//", "/.", "/..", ".", "..", "x", "./x", "../x", "~/x", "~root/x", "$HOME/x", "-o", "--",
    "/etc", "/etc/dms-hostile", "/proc/self/root/x", "/proc/1/root/x", "/dev/shm/x", "/tmp/x",
    "@BASE@", "@BASE@/", "@BASE@/.", "@BASE@/..", "@BASE@/../decoy/x", "@BASE@/x/../../decoy/x",
    "@BASE@//x", "@BASE@/x/", "@BASE@/./x", "@BASE@/x/.", "@BASE@/link", "@BASE@/link/x",
    "@BASE@/link/sub/x", "@BASE@x/t1", "@BASE@\0/x", "@BASE@/x\0", "@BASE@/a\nb", "@BASE@/a\u{1b}b",
    " @BASE@/x", "@BASE@/x ", "@DECOY@", "@DECOY@/sub", "file://@BASE@/x", "\u{ff0f}etc",
];

#[rustfmt::skip]
const OPTIONS: [&str; 14] = [
    "RW", "Ro", "\u{ff32}\u{ff37}", "rw\u{200b}", "\u{202e}wr", "vers=\u{ff14}", "nfsvers=4\0",
    "rw,,,;suid", "hard\u{a0}", "ro\u{2028}suid", "rw suid", "ro,-osuid", "rw\0,suid", "s\u{443}nc",
];

#[rustfmt::skip]
const EXPORTS: [&str; 16] = [
    "h:/x\0", "h:/x\n-o", "\u{ff48}:/x", "h\u{ff1a}/x", "h:\u{ff0f}x", "h:/..", "H:/../x", "\u{202e}h:/x",
    "h\u{200b}:/x", "$(id):/x", "`id`:/x", "h|id:/x", "h:x:/y", "@h:/x", "h@evil:/x", "\u{1f980}:/x",
];

/// Exports that are some, with odd paths: they come behind `--`.
#[rustfmt::skip]
const ODD_EXPORTS: [&str; 12] = [
    "mute:/-o", "mute:/ x", "mute:/x,suid", "mute:/$(id)", "mute:/`id`", "mute:/*", "mute:/a:b",
    "mute:/\u{202e}x", "mute:/\u{e9}", "MUTE:/x", "mute:/%2e%2e", "mute:/\u{ff0e}\u{ff0e}/x",
];

#[rustfmt::skip]
const HOSTS: [&str; 16] = [
    "", "another", "COMPUTE-01", "compute-01 ", "compute-01\0", "compute-01\n", "../compute-01",
    "compute\u{2011}01", "\u{ff43}ompute-01", "c\u{43e}mpute-01", "\u{202e}10-etupmoc", "compute-01.", "*",
    "localhost", "127.0.0.1", "-o",
];

#[rustfmt::skip]
const ACTIONS: [&str; 15] = [
    "", "Mount", "MOUNT", "mount ", " mount", "mount\0", "mount\n", "\u{ff4d}ount", "m\u{43e}unt", "umount",
    "remount", "exec", "mount;reboot", "\u{202e}tnuom", "status",
];

#[rustfmt::skip]
const TYPES: [&str; 18] = [
    "", "S3", "NFS", "Nfs", "s3 ", " s3", "s3\0", "\u{ff53}3", "\u{455}3", "nfs4", "fuse", "bind", "tmpfs",
    "ext4", "zfs", "overlay", "-t", "s\u{200b}3",
];

#[rustfmt::skip]
const STATUSES: [&str; 8] = [
    "", "Available", "AVAILABLE", "available ", "deleted", "available\0", "\u{ff41}vailable", "error",
];

/// A field, and the types that it has not.
fn wrong_types() -> Vec<(&'static str, Vec<Value>)> {
    let no_text = || vec![json!(7), json!(true), json!([]), json!(["x"]), json!({})];
    let no_object = || vec![json!(7), json!(false), json!("x"), json!([]), json!([{}])];
    let mut all: Vec<(&str, Vec<Value>)> = [
        "/host",
        "/action",
        "/keystone_token",
        "/request_id",
        "/backup_target/id",
        "/backup_target/type",
        "/backup_target/secret_ref",
        "/backup_target/filesystem_export",
        "/backup_target/filesystem_export_mount_path",
        "/backup_target/nfs_mount_opts",
        "/backup_target/status",
    ]
    .map(|field| (field, no_text()))
    .into();
    all.extend(["/context", "/job", "/backup_target"].map(|field| (field, no_object())));
    all.push(("/backup_target/deleted", vec![json!(1), json!("no"), json!([]), json!(true)]));
    all.push(("/deadline", vec![json!("soon"), json!(true), json!([]), json!({}), json!(-1)]));
    let numbers =
        [json!("job-1"), json!(1.5), json!(true), json!([]), json!({}), json!(1_u64 << 31)];
    let more =
        ["-1", "+1", " 1", "1 ", "0x1", "\u{ff11}", "\u{661}", "", "1\0"].map(|text| json!(text));
    all.push(("/jobid", numbers.into_iter().chain(more).collect()));
    all.push(("/plan", vec![json!(1), json!("x"), json!([]), json!({}), json!(true)]));
    all
}

/// A request to mount, whose secret the key manager does not have.
fn s3() -> Value {
    let target = json!({"id": "t1", "type": "s3", "secret_ref": "@KMS@"});
    json!({"host": "compute-01", "jobid": 1, "keystone_token": "@TOKEN@", "action": "mount",
        "context": {}, "backup_target": target})
}

/// One to mount what mount(8) cannot.
fn nfs() -> Value {
    let mut request = s3();
    request["backup_target"] = json!({"id": "t1", "type": "nfs", "filesystem_export": "mute:/x",
        "nfs_mount_opts": "rw"});
    request
}

/// The request with this in the field.
pub(crate) fn with(mut request: Value, field: &str, value: Value) -> Value {
    let (parent, name) = field.rsplit_once('/').expect("a pointer");
    request.pointer_mut(parent).expect("it is there")[name] = value;
    request
}

/// All of it.
pub(crate) fn corpus(stage: &Stage) -> Vec<Line> {
    let mut lines = written(stage);
    let mut add = |request: Value, code: &str| {
        // As it stands in a line: what is filled in is plain.
        let text = stage.fill(&request.to_string());
        lines.push(Line { text: text.into_bytes(), code: code.into(), piped: code.into() });
    };
    let mut every = |request: fn() -> Value, field: &str, words: &[&str], code: &str| {
        for word in words {
            add(with(request(), field, json!(word)), code);
        }
    };
    const IN: &str = "/backup_target/";
    let field = |name: &str| format!("{IN}{name}");
    for request in [s3, nfs] {
        every(request, &field("id"), &BAD_IDS, "validation");
        every(request, &field("filesystem_export_mount_path"), &PATHS, "validation");
        every(request, &field("status"), &STATUSES, "validation");
        every(request, "/host", &HOSTS, "validation");
    }
    every(good, &field("id"), &ODD_IDS, "mount");
    every(nfs, &field("id"), &ODD_IDS, "mount");
    every(s3, "/action", &ACTIONS, "validation");
    every(s3, &field("type"), &TYPES, "validation");
    every(s3, "/request_id", &["", "a\0", "a\n", "a ", "\u{1b}[2J"], "validation");
    every(nfs, &field("nfs_mount_opts"), &HOSTILE_OPTIONS, "validation");
    every(nfs, &field("nfs_mount_opts"), &OPTIONS, "validation");
    every(nfs, &field("filesystem_export"), &HOSTILE_EXPORTS, "validation");
    every(nfs, &field("filesystem_export"), &EXPORTS, "validation");
    every(nfs, &field("filesystem_export"), &ODD_EXPORTS, "mount");
    for (field, values) in wrong_types() {
        for value in values {
            add(with(s3(), field, value), "validation");
        }
    }
    lines.extend(references(stage));
    lines.extend(large(stage));
    lines.extend(raw(stage));
    lines
}

/// One whose secret is good: its program is started, and fails.
fn good() -> Value {
    with(s3(), "/backup_target/secret_ref", json!("@GOOD@"))
}

/// Those of the file.
fn written(stage: &Stage) -> Vec<Line> {
    let text = include_str!("../../fixtures/hostile-requests.txt").lines();
    let lines = text.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = |line: &str| {
        let (codes, request) = line.split_once(' ').expect("a code and a request");
        let (code, piped) = codes.split_once('|').unwrap_or((codes, codes));
        let text = stage.fill(request).into_bytes();
        Line { text, code: code.into(), piped: piped.into() }
    };
    lines.map(line).collect()
}

/// Secrets of another key manager, by spellings that some program could take for the right one.
fn references(stage: &Stage) -> Vec<Line> {
    let (here, there) = stage.ports();
    let reference = |line: &str| {
        let text = line
            .replace("PATH", "v1/secrets/0f8fad5b-d9cb-469f-a165-70867728950e")
            .replace("THERE", &format!("127.0.0.1:{there}"))
            .replace("HERE", &format!("127.0.0.1:{here}"))
            .replace("PORT", &there.to_string());
        let request = with(s3(), "/backup_target/secret_ref", json!(text));
        let code = if text.contains(['\u{0}', '\n']) { "validation" } else { "credentials" };
        let text = stage.fill(&request.to_string()).into_bytes();
        Line { text, code: code.into(), piped: code.into() }
    };
    // All of them are sent in hostile.rs.
    let step = if is_long_run() { 1 } else { 3 };
    let references = include_str!("../../fixtures/hostile-references.txt").lines();
    references.step_by(step).map(reference).collect()
}

/// As long as a line may be, in each field, and longer; and deep.
fn large(stage: &Stage) -> Vec<Line> {
    const LIMIT: usize = 1 << 20;
    let mut lines = Vec::new();
    let mut add = |text: String, code: &str| {
        lines.push(Line { text: text.into_bytes(), code: code.into(), piped: code.into() });
    };
    for (field, code) in [
        ("/backup_target/id", "validation"),
        ("/backup_target/type", "validation"),
        ("/backup_target/status", "validation"),
        ("/backup_target/secret_ref", "validation"),
        ("/backup_target/filesystem_export_mount_path", "validation"),
        ("/backup_target/nfs_mount_opts", "validation"),
        ("/backup_target/filesystem_export", "validation"),
        ("/host", "validation"),
        ("/action", "validation"),
        ("/request_id", "validation"),
        ("/jobid", "validation"),
        ("/keystone_token", "credentials"),
        ("/context/user_id", "credentials"),
        ("/backup_target/unknown", "credentials"),
    ] {
        let request = if code == "validation" { nfs() } else { s3() };
        let short = stage.fill(&with(request.clone(), field, json!("")).to_string()).len();
        // A pipeline needs room for the plan.
        for (length, code) in [(LIMIT - (20 << 10), code), (LIMIT + 1, "validation")] {
            let word = json!("x".repeat(length - short));
            add(stage.fill(&with(request.clone(), field, word).to_string()), code);
        }
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        add(deep.clone(), "validation");
        let request = stage.fill(&with(s3(), "/context/x", json!("DEEP")).to_string());
        add(request.replace("\"DEEP\"", &deep), "validation");
        let bearable = format!("{}1{}", open.repeat(100), close.repeat(100));
        add(request.replace("\"DEEP\"", &bearable), "credentials");
    }
    lines
}

/// Lines that are no text.
fn raw(stage: &Stage) -> Vec<Line> {
    let request = stage.fill(&s3().to_string());
    let bytes: [&[u8]; 7] = [
        b"\0",
        b"\xff\xfe{\0}\0",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x1b[2J",
        b"\x04",
    ];
    let mut lines: Vec<Vec<u8>> = bytes.iter().map(|bytes| bytes.to_vec()).collect();
    for bytes in bytes {
        let (head, tail) = request.split_at(request.find("t1").expect("its id"));
        lines.push([head.as_bytes(), bytes, tail.as_bytes()].concat());
        lines.push([request.as_bytes(), bytes].concat());
    }
    let line = |text| Line { text, code: "validation".into(), piped: "validation".into() };
    lines.into_iter().map(line).collect()
}
