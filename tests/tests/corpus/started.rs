//! The programs that were started, as strace has written them down, and what they may be told.

use std::path::Path;

/// A program and its command line, strace's escapes and all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Started {
    program: String,
    words: Vec<String>,
}

/// Options of programs that are the same for all requests.
const OPTIONS: [&str; 28] = [
    "--",
    "--device",
    "--server",
    "--with",
    "--below",
    "--serving",
    "--told",
    "--pid",
    "--value",
    "-ourl=",
    "--each",
    "-c",
    "-i",
    "-l",
    "-f",
    "-t",
    "-o",
    "-e",
    "-ec",
    "-osubtype=s3fs",
    "-onosuid",
    "-onodev",
    "-odbglevel=err",
    "-ologfile=/dev/stderr",
    "-oconnect_timeout=5",
    "-ouse_path_request_style",
    "-oendpoint=us-east-1",
    "-m",
];

/// What mount(8) may be told behind `-o`: the good options of the corpus, and ours.
const MOUNT_OPTIONS: [&str; 10] =
    ["rw", "ro", "hard", "soft", "vers=4.1", "nfsvers=4", "timeo=600", "nosuid", "nodev", "noexec"];

/// What stands between sudo(8) and mount(8) where the node has it so.
pub(crate) const ROOTWRAP: [&str; 2] = ["/usr/bin/dms-rootwrap", "/etc/dms/rootwrap.conf"];

/// Every `execve` in the log.
pub(crate) fn read(log: &str) -> Vec<Started> {
    let calls = log.lines().filter_map(|line| line.split_once("execve(").map(|(_, rest)| rest));
    let failed = |call: &&str| !call.contains("= -1 ENOENT");
    calls.filter(failed).filter_map(parse).collect()
}

/// `"PROGRAM", ["WORD", "WORD"], ...`
fn parse(call: &str) -> Option<Started> {
    let (program, rest) = quoted(call)?;
    let mut rest = rest.strip_prefix(", [")?;
    let mut words = Vec::new();
    while let Some((word, behind)) = quoted(rest) {
        words.push(word);
        rest = behind.strip_prefix(", ").unwrap_or(behind);
    }
    Some(Started { program, words })
}

/// What is between quotes at the beginning, and what is behind.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return Some((text[..at].to_owned(), &text[at + 1..])),
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    None
}

/// Whether it is one that may be started so, whatever was asked.
pub(crate) fn check(started: &Started, base: &Path) -> Result<(), &'static str> {
    let name = started.program.rsplit('/').next().unwrap_or_default();
    let words: Vec<&str> = started.words.iter().skip(1).map(String::as_str).collect();
    let below = format!("{}/", base.display());
    let is_below =
        |path: &str| path.starts_with(&below) && path.split('/').all(|part| part != "..");
    match (name, &words[..]) {
        ("mount", words) => mount(words, is_below),
        ("sudo", [bin, conf, "mount", words @ ..]) if [*bin, *conf] == ROOTWRAP => {
            mount(words, is_below)
        }
        ("mount.nfs", [export, path, "-o", options]) => {
            // mount(8) drops what needs no helper, and adds none.
            let known = |option: &str| MOUNT_OPTIONS.contains(&option);
            let is_good = options.split(',').all(known) && !export.starts_with('-');
            if is_good && is_below(path) {
                Ok(())
            } else {
                Err("its helper was told something else")
            }
        }
        ("umount", ["-c", "-i", .., "--", path]) if words.len() <= 5 && is_below(path) => Ok(()),
        ("s3fs", words) => s3fs(words, is_below),
        // It is told by a pipe what it is to ask.
        ("dms-mount-secret", []) => Ok(()),
        ("exe" | "dms-mount" | "dms-ledger" | "dms-lock" | "dms-pipeline" | "sh", words) => {
            let is_ours = |word: &&str| !word.starts_with('-') || OPTIONS.contains(word);
            if words.iter().all(is_ours) { Ok(()) } else { Err("an option that is none of ours") }
        }
        _ => Err("a program that is none of ours, or that was told something else"),
    }
}

fn mount(words: &[&str], is_below: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    let ["-t", "nfs", "-o", options, "--", export, path] = words else {
        return Err("mount was told something else");
    };
    if !options.split(',').all(|option| MOUNT_OPTIONS.contains(&option)) {
        return Err("an option for mount that is none of ours");
    }
    let is_ours = options.ends_with("nosuid,nodev,noexec") && !export.starts_with('-');
    if is_ours && is_below(path) { Ok(()) } else { Err("mount was told something else") }
}

fn s3fs(words: &[&str], is_below: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    let ["-f", "bucket", path, rest @ ..] = words else {
        return Err("s3fs was told something else");
    };
    let is_mark = |word: &str| {
        let id = word.strip_prefix("-ofsname=dms:").and_then(|rest| rest.strip_suffix("/bucket"));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_%".contains(&byte);
        id.is_some_and(|id| id.bytes().all(is_plain))
    };
    let is_ours = |word: &&str| {
        OPTIONS.contains(word) || is_mark(word) || word.starts_with("-ourl=http://127.0.0.1:")
    };
    if rest.iter().all(is_ours) && is_below(path) { Ok(()) } else { Err("an option of s3fs") }
}

#[test]
fn what_strace_writes_is_read() {
    let log = r#"7 execve("/bin/mount", ["mount", "-o", "a\"b, \\", "--"], 0x7f /* 3 vars */) = 0
8 execve("/x/mount", ["mount"], 0x7f /* 3 vars */) = -1 ENOENT (No such file or directory)"#;
    let words = ["mount", "-o", r#"a\"b, \\"#, "--"].map(str::to_owned).to_vec();
    assert_eq!(read(log), [Started { program: "/bin/mount".into(), words }]);
}

#[test]
fn a_word_of_a_request_as_an_option_is_noticed() {
    let check = |program: &str, words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        check(&Started { program: program.into(), words }, Path::new("/b"))
    };
    let mount = |options, export, path| {
        check("/bin/mount", &["mount", "-t", "nfs", "-o", options, "--", export, path])
    };
    assert_eq!(mount("ro,nosuid,nodev,noexec", "h:/x", "/b/t"), Ok(()));
    assert!(mount("ro,suid,nosuid,nodev,noexec", "h:/x", "/b/t").is_err());
    assert!(mount("nosuid,nodev,noexec", "-o", "/b/t").is_err());
    assert!(mount("nosuid,nodev,noexec", "h:/x", "/b/../etc").is_err());
    let sudo = |words: &[&str]| check("/bin/sudo", &[&["sudo"], words].concat());
    let nfs = ["mount", "-t", "nfs", "-o", "nosuid,nodev,noexec", "--", "h:/x", "/b/t"];
    assert!(sudo(&[&ROOTWRAP[..], &nfs].concat()).is_ok());
    assert!(sudo(&nfs).is_err() && sudo(&[&["-e"], &ROOTWRAP[..], &nfs].concat()).is_err());
    assert!(check("/bin/mount", &["mount", "-o", "suid", "h:/x", "/b/t"]).is_err());
    assert!(check("/bin/umount", &["umount", "-c", "-i", "--", "/b/t"]).is_ok());
    assert!(check("/bin/umount", &["umount", "-c", "-i", "--", "/etc"]).is_err());
    assert!(
        check("/usr/bin/s3fs", &["s3fs", "-f", "bucket", "/b/t", "-ofsname=dms:%2Do/bucket"])
            .is_ok()
    );
    assert!(check("/usr/bin/s3fs", &["s3fs", "-f", "bucket", "/b/t", "-oallow_other"]).is_err());
    assert!(check("/bin/rm", &["rm", "x"]).is_err());
    assert!(check("/x/dms-mount", &["dms-mount", "look", "--rm"]).is_err());
}
