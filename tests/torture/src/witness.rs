//! A job at work: it writes files through its mount, one after the other, reads them back, and puts
//! down what came of it. By the path, as a job does: if the mount goes away, the next file shows it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dms_tests::Dice;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::now;

/// What it is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the target is mounted
    dir: PathBuf,
    /// What its files are called
    name: String,
    /// Where it puts down what it sees
    log: PathBuf,
    /// For how long
    seconds: f64,
    /// Keep a file open all the time, too
    #[arg(long)]
    open: bool,
    /// Have each file on its disk before it is closed
    #[arg(long)]
    sync: bool,
}

/// The first words of a witness, and its last ones.
pub(crate) const BEGIN: &str = "begin";
pub(crate) const END: &str = "end";

struct Witness<'a> {
    options: &'a Options,
    log: File,
    /// The file system that is there when nothing is mounted.
    bare: u64,
}

/// How one write went: how far it came, and what kept it from getting further.
type Outcome = Result<(), (&'static str, io::Error)>;

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(&options.log)?;
    // Above the mount point, which need not be there when it is not mounted.
    let above = options.dir.ancestors().skip(1).find_map(|path| fs::metadata(path).ok());
    let bare = above.map_or(0, |above| above.dev());
    let mut witness = Witness { options, log, bare };
    let end = now() + options.seconds;
    witness.say(&json!({"event": BEGIN, "t": now(), "pid": std::process::id()}))?;
    let seed = options.name.bytes().fold(0, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
    let mut dice = Dice::new(seed);
    let mut held = if options.open { witness.hold() } else { None };
    let mut number = 0;
    loop {
        let name = format!("{}.{number}", options.name);
        let size = if dice.below(12) == 0 { 400_000 } else { 20 + dice.below(20_000) };
        let text = content(&name, size);
        let written = witness.write(&name, &text)?;
        if written {
            witness.read(&name, &text)?;
        }
        held = held.and_then(|held| append(held, &content(&name, 40)));
        number += 1;
        thread::sleep(Duration::from_millis(60 + dice.below(120)));
        if now() > end {
            break;
        }
    }
    if let Some((file, text)) = held {
        let begun = now();
        let synced = if options.sync { file.sync_all() } else { Ok(()) };
        let closed = synced.map_err(|why| ("sync", why)).and(close(file));
        witness.wrote(begun, &format!("{}.open", options.name), &text, false, &closed)?;
    }
    witness.say(&json!({"event": END, "t": now()}))
}

impl Witness<'_> {
    fn say(&mut self, line: &Value) -> io::Result<()> {
        self.log.write_all(format!("{line}\n").as_bytes())
    }

    /// A file that stays open, if it can be made.
    fn hold(&mut self) -> Option<(File, String)> {
        let path = self.options.dir.join(format!("{}.open", self.options.name));
        let file = OpenOptions::new().write(true).create_new(true).open(path).ok()?;
        let is_bare = file.metadata().is_ok_and(|data| data.dev() == self.bare);
        // The next write shows it, and says so.
        (!is_bare).then(|| (file, String::new()))
    }

    /// Writes a file and closes it; whether that went well.
    fn write(&mut self, name: &str, text: &str) -> io::Result<bool> {
        let begun = now();
        let mut is_bare = false;
        let outcome = self.try_writing(name, text, &mut is_bare);
        let is_good = outcome.is_ok();
        self.wrote(begun, name, text, is_bare, &outcome)?;
        Ok(is_good)
    }

    fn try_writing(&self, name: &str, text: &str, is_bare: &mut bool) -> Outcome {
        let path = self.options.dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = file.map_err(|why| ("open", why))?;
        *is_bare = file.metadata().is_ok_and(|data| data.dev() == self.bare);
        let mut written = file.write_all(text.as_bytes()).map_err(|why| ("write", why));
        if self.options.sync {
            written = written.and_then(|()| file.sync_all().map_err(|why| ("sync", why)));
        }
        let closed = close(file);
        written.and(closed)
    }

    fn wrote(
        &mut self,
        begun: f64,
        name: &str,
        text: &str,
        bare: bool,
        outcome: &Outcome,
    ) -> io::Result<()> {
        let (at, errno) = outcome
            .as_ref()
            .err()
            .map_or(("", 0), |(at, why)| (*at, why.raw_os_error().unwrap_or(-1)));
        self.say(&json!({
            "event": "write", "begun": begun, "t": now(), "file": name, "bytes": text.len(),
            "sum": sum(text.as_bytes()), "ok": outcome.is_ok(), "at": at, "errno": errno,
            "bare": bare,
        }))
    }

    fn read(&mut self, name: &str, text: &str) -> io::Result<()> {
        let begun = now();
        let read = fs::read(self.options.dir.join(name));
        let errno = read.as_ref().err().map_or(0, |why| why.raw_os_error().unwrap_or(-1));
        let same = read.is_ok_and(|bytes| bytes == text.as_bytes());
        self.say(&json!({
            "event": "read", "begun": begun, "t": now(), "file": name, "same": same, "errno": errno,
        }))
    }
}

/// Writes on in a file that is open; nobody knows what is in one after an error.
fn append((mut file, text): (File, String), more: &str) -> Option<(File, String)> {
    file.write_all(more.as_bytes()).ok()?;
    Some((file, text + more))
}

/// What is written is sent when it is closed; a `File` that is dropped would not say how that went.
fn close(file: File) -> Outcome {
    nix::unistd::close(file).map_err(|why| ("close", why.into()))
}

fn content(name: &str, size: u64) -> String {
    let line = format!("{name} was here\n");
    line.repeat(usize::try_from(size).unwrap_or_default() / line.len() + 1)
}

/// The checksum that stands for a content.
pub(crate) fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
