//! A copy of what goes by in a pipeline, in a file. tee(1) does not see that its reader has ended before
//! it has something to write, and would keep a pipeline that has lost a stage from ending.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What it is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The file, which may have something in it already
    file: PathBuf,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(&options.file)?;
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = [0; 65_536];
    loop {
        let mut ends = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        poll(&mut ends, PollTimeout::NONE)?;
        let is_over = |end: &PollFd| end.revents().is_some_and(|seen| !seen.is_empty());
        if is_over(&ends[1]) {
            return Ok(());
        }
        let count = stdin.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..count])?;
        stdout.write_all(&buffer[..count])?;
        stdout.flush()?;
    }
}
