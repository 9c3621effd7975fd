//! What a daemon says, for as long as it lives: a pipe that nobody reads would stop it, and a file
//! would grow for ever. This program, as `dms-mount drain`, stands beside each daemon, keeps its
//! last words in a file of bounded size, and ends with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dms_cli::{Context, Exit, Failure, JOURNAL_STREAM, journal_stream};
use nix::unistd::setsid;

use crate::scope::Scope;

/// When the file is put aside, in bytes: with the one before, twice this is kept.
const LIMIT: u64 = 512 << 10;

/// How it is started: with our standard error only if that is the journal. Somebody's pipe or
/// terminal is not ours to keep open for as long as a daemon lives.
pub(crate) fn command(log: &Path, scope: Option<&Scope>) -> Command {
    // By our number: in between there may be another program, and an upgrade may have replaced our
    // file.
    let ourselves = format!("/proc/{}/exe", std::process::id());
    let mut command = match scope {
        Some(scope) => {
            let mut command = scope.command("-log");
            command.arg(ourselves);
            command
        }
        None => Command::new(ourselves),
    };
    command.args(["drain", "--"]).arg(log).env_clear().stdout(Stdio::null());
    match journal_stream() {
        Some(stream) => command.env(JOURNAL_STREAM, stream),
        None => command.stderr(Stdio::null()),
    };
    command
}

/// The drain's own main: copies standard input until its end.
pub(crate) fn main(log: &Path) -> Result<Exit, Failure> {
    // Not to be killed with the run that has started it.
    setsid().context("unable to make", "a session")?;
    let mut file = Bounded::open(log.to_owned()).context("unable to write", log.display())?;
    let mut journal = journal_stream().map(|_| io::stderr());
    let mut input = io::stdin().lock();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(Exit::Done),
            Ok(count) => count,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why).context("unable to read", "stdin"),
        };
        // Whatever becomes of the words: a daemon is not to stop for want of room for them.
        if let Err(why) = file.write(&buffer[..count]) {
            log::debug!("unable to write {}: {why}", log.display());
        }
        if let Some(journal) = &mut journal {
            let _ = journal.write_all(&buffer[..count]);
        }
    }
}

/// Where the one before is kept.
pub(crate) fn earlier(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// A file that is put aside when it has grown.
struct Bounded {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Bounded {
    fn open(path: PathBuf) -> io::Result<Bounded> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.size();
        Ok(Bounded { path, file, size })
    }

    fn write(&mut self, words: &[u8]) -> io::Result<()> {
        if self.size >= LIMIT {
            fs::rename(&self.path, earlier(&self.path))?;
            *self = Bounded::open(self.path.clone())?;
        }
        self.file.write_all(words)?;
        self.size += words.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_talks_without_end_fills_two_files_and_its_last_words_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("t.log");
        let mut file = Bounded::open(log.clone()).expect("it can be written");
        for number in 0..5000 {
            let line = format!("{number:0>1000}\n");
            file.write(line.as_bytes()).expect("it can be written");
        }
        let (now, before) = (fs::read(&log), fs::read(earlier(&log)));
        let (now, before) = (now.expect("it is there"), before.expect("it was put aside"));
        assert!(now.len() + before.len() <= 2 * (512 << 10) + 4000);
        assert!(String::from_utf8_lossy(&now).trim_end().ends_with("4999"));
    }
}
