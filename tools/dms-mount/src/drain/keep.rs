//! The drain's own main: what it is handed, it reads to its end.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Stderr, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dms_cli::{Context, Exit, Failure, journal_stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

/// When the file is put aside, in bytes: with the one before, twice this is kept.
const LIMIT: u64 = 512 << 10;

/// No name is longer.
const LONGEST: usize = 255;

/// Keeps the words of every pipe that comes over the socket on standard input in a file of this directory,
/// until nobody hands over any more and the last has ended.
pub(crate) fn main(directory: &Path) -> Result<Exit, Failure> {
    // Not to be killed with the run that has started it.
    setsid().context("unable to make", "a session")?;
    let socket = io::stdin();
    let mut journal = journal_stream().map(|_| io::stderr());
    let mut kept: Vec<Pipe> = Vec::new();
    let mut is_over = false;
    while !is_over || !kept.is_empty() {
        let (hands_over, has_words) =
            wait(&socket, is_over, &kept).context("unable to wait for", "what daemons say")?;
        let mut has_words = has_words.into_iter();
        kept.retain_mut(|pipe| {
            let goes_on = !has_words.next().unwrap_or(false) || pipe.copy(journal.as_mut());
            if !goes_on {
                let number = pipe.number.to_le_bytes();
                // Whoever wants to know waits for it.
                let _ = send(&socket, &number, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
            goes_on
        });
        if hands_over {
            match receive(&socket, directory).context("unable to read", "stdin")? {
                Handed::Pipe(pipe) => kept.push(pipe),
                Handed::Nothing => {}
                Handed::NoMore => is_over = true,
            }
        }
    }
    Ok(Exit::Done)
}

/// Whether there is something on the socket, and which of the pipes have words, or have ended.
fn wait(socket: &impl AsFd, is_over: bool, kept: &[Pipe]) -> io::Result<(bool, Vec<bool>)> {
    let pipes = kept.iter().map(|pipe| pipe.reader.as_fd());
    // After its end, the socket would wake us for ever.
    let all = pipes.chain((!is_over).then_some(socket.as_fd()));
    let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::NONE) {
        Err(nix::errno::Errno::EINTR) => return Ok((false, vec![false; kept.len()])),
        polled => polled?,
    };
    let mut ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    let hands_over = ready.split_off(kept.len()).contains(&true);
    Ok((hands_over, ready))
}

/// What came over the socket.
enum Handed {
    Pipe(Pipe),
    Nothing,
    NoMore,
}

/// The number of a pipe and the name of its log, and the pipe beside them.
fn receive(socket: &impl AsFd, directory: &Path) -> io::Result<Handed> {
    let (mut number, mut name) = ([0; 8], [0; LONGEST]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut number), IoSliceMut::new(&mut name)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = match recvmsg(socket, &mut parts, &mut control, flags) {
        Ok(received) => received.bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Handed::Nothing),
        // Who has handed over was killed with words of ours that it has not read.
        Err(rustix::io::Errno::CONNRESET) => return Ok(Handed::NoMore),
        Err(why) => return Err(why.into()),
    };
    let Some(length) = length.checked_sub(number.len()) else { return Ok(Handed::NoMore) };
    let handed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut pipes) => pipes.next(),
        _ => None,
    });
    let Some(reader) = handed else { return Ok(Handed::Nothing) };
    let mut log = Bounded::at(directory.join(OsStr::from_bytes(&name[..length])));
    // It is there as long as somebody keeps it, be it empty.
    if let Err(why) = log.file() {
        log::debug!("unable to write {}: {why}", log.path.display());
    }
    Ok(Handed::Pipe(Pipe { reader: reader.into(), number: u64::from_le_bytes(number), log }))
}

/// What one daemon says, and where it is kept.
struct Pipe {
    reader: File,
    number: u64,
    log: Bounded,
}

impl Pipe {
    /// Copies what there is. False: its end.
    fn copy(&mut self, journal: Option<&mut Stderr>) -> bool {
        let mut buffer = [0; 16 << 10];
        let words = match self.reader.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => &buffer[..count],
            Err(why) => return why.kind() == io::ErrorKind::Interrupted,
        };
        // Whatever becomes of the words: a daemon is not to stop for want of room for them.
        if let Err(why) = self.log.write(words) {
            log::debug!("unable to write {}: {why}", self.log.path.display());
        }
        if let Some(journal) = journal {
            let _ = journal.write_all(words);
        }
        true
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
    /// With its size.
    open: Option<(File, u64)>,
}

impl Bounded {
    fn at(path: PathBuf) -> Bounded {
        Bounded { path, open: None }
    }

    fn file(&mut self) -> io::Result<&mut (File, u64)> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.size();
                (file, size)
            }
        };
        Ok(self.open.insert(open))
    }

    fn write(&mut self, words: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= LIMIT) {
            fs::rename(&self.path, earlier(&self.path))?;
            self.open = None;
        }
        let (file, size) = self.file()?;
        file.write_all(words)?;
        *size += words.len() as u64;
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
        let mut file = Bounded::at(log.clone());
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
