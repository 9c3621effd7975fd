//! What there is to be seen of one process; may hang, as it may.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// So many milliseconds an exec may take before it is left out.
const EXEC: u32 = 200;

/// Looks outside of an exec after which what was seen is all that there is.
const SURE: u32 = 4;

/// An environment is rarely longer.
const LENGTH: usize = 16 * 1024;

/// What the process was started with: `environ` or `cmdline`. Of a kernel thread, and of what is just
/// ending, there is no program, and nothing else. In the middle of an exec there is neither, or the
/// beginning of what there was, and it may be what is looked for all the same.
fn started_as(process: &Path, file: &str) -> Vec<u8> {
    let has_program = || fs::read_link(process.join("exe")).is_ok();
    let has_words = || read_whole(&process.join("cmdline")).is_some_and(|text| !text.is_empty());
    let mut text = Vec::new();
    let mut looks = 0;
    for _ in 0..EXEC {
        let Some(now) = read_whole(&process.join(file)) else { break };
        text = now;
        if text.last() == Some(&0) || looks == SURE || !has_program() {
            break;
        }
        if text.is_empty() && !has_words() {
            thread::sleep(Duration::from_millis(1));
        } else {
            // The exec has just ended; or it has none, or one of its own making.
            looks += 1;
        }
    }
    text
}

/// In one piece: of what an exec ends, there is no second. Nothing of a kernel thread, which cannot
/// be opened.
fn read_whole(file: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(LENGTH);
    // A file is asked first how long it is; what is taken from one is not.
    File::open(file).ok()?.take(u64::MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

pub(super) fn has_entries(process: &Path, entries: &[String]) -> bool {
    let environment = started_as(process, "environ");
    let has = |entry: &String| environment.split(|&byte| byte == 0).any(|e| e == entry.as_bytes());
    entries.iter().all(has)
}

pub(super) fn value_of(process: &Path, words: &[String]) -> Option<String> {
    let text = ["cmdline", "environ"].map(|file| started_as(process, file)).join(&0);
    let mut told = text.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    told.find_map(|told| {
        let behind = words.iter().find_map(|word| told.strip_prefix(word.as_bytes()));
        behind.map(|rest| String::from_utf8_lossy(rest).into_owned())
    })
}

pub(super) fn was_told(process: &Path, words: &[String]) -> bool {
    let text = started_as(process, "cmdline");
    let told: Vec<&[u8]> = text.split(|&byte| byte == 0).collect();
    // Anybody can write anything on a command line of their own.
    told.windows(words.len()).any(|part| part.iter().zip(words).all(|(a, b)| *a == b.as_bytes()))
        && fs::metadata(process).is_ok_and(|about| about.uid() == 0)
}

pub(super) fn has_copy(process: &Path, device: &str) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    // 36 35 98:0 /root /mount/point ...
    let is_it = |line: &str| line.split(' ').nth(2) == Some(device);
    namespace(process) != namespace(Path::new("/proc/self"))
        && fs::read_to_string(process.join("mountinfo")).is_ok_and(|text| text.lines().any(is_it))
}

pub(super) fn has_below(process: &Path, path: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = ["cwd", "root", "exe"]
        .map(|name| process.join(name))
        .into_iter()
        .chain(descriptors.map(|descriptor| descriptor.path()));
    // Reading a link does not touch what it points to.
    links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(path)))
}

pub(super) fn serves(process: &Path, path: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let path = path.as_os_str().as_bytes();
    let names = |file: &str| {
        started_as(process, file)
            .split(|&byte| byte == 0)
            .any(|word| word == path || word.splitn(2, |&byte| byte == b'=').nth(1) == Some(path))
    };
    links.any(|link| link == Path::new("/dev/fuse")) && (names("cmdline") || names("environ"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_execs_is_known_by_its_environment_all_the_while() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let again = dir.path().join("again");
        fs::write(&again, "exec sh \"$0\"\n").expect("there is room");
        let mut command = Command::new("sh");
        let mut process = command.arg(&again).env("EXEC_TEST", "x").spawn().expect("it is there");
        let path = PathBuf::from(format!("/proc/{}", process.id()));
        let entries = ["EXEC_TEST=x".to_owned()];
        let missed = (0..50_000).filter(|_| !has_entries(&path, &entries)).count();
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
        // It does nothing but exec. Of those that read once, one in four.
        assert!(missed < 5, "{missed}");
    }
}
