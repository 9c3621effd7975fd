//! Reading and writing one line.
//!
//! A line that is too long is thrown away while it is read, so that no peer can make us hold more
//! than [`MAX_LINE`] bytes, and the next line is read as if nothing had happened.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

/// The longest request in bytes, without the newline: 1 MiB.
pub const MAX_REQUEST: usize = 1 << 20;

/// The longest line between two stages: a request of [`MAX_REQUEST`] bytes and the plan that
/// `dms-ledger plan` adds to it.
pub const MAX_LINE: usize = MAX_REQUEST + (64 << 10);

/// What stood between two newlines.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The bytes, without the newline. Not yet known to be UTF-8, let alone JSON.
    Text(Vec<u8>),
    /// More than the limit; nothing of it was kept.
    TooLong,
}

/// The lines on stdin.
#[derive(Debug)]
pub struct Lines {
    input: BufReader<File>,
    limit: usize,
    /// Descriptors that end the wait for the next line, and how.
    watched: Vec<(File, PollFlags)>,
}

impl Lines {
    /// Takes stdin over. Lines longer than `limit` are [`Line::TooLong`].
    ///
    /// # Errors
    /// If stdin is closed.
    pub fn on_stdin(limit: usize) -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Lines { input: BufReader::with_capacity(64 << 10, input), limit, watched: Vec::new() })
    }

    /// Ends when nobody reads our stdout any more.
    ///
    /// In a pipeline a dead stage is noticed by the ones behind it, whose input ends. The ones
    /// before it would notice only when they next write. So that a pipeline that has lost any of
    /// its stages ends as a whole, they wait for both.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn while_read(mut self) -> io::Result<Self> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        self.watched.push((output, PollFlags::empty()));
        Ok(self)
    }

    /// Ends when there is something to read from `stop`; a line that is being worked on is
    /// finished first.
    #[must_use]
    pub fn until(mut self, stop: OwnedFd) -> Self {
        self.watched.push((stop.into(), PollFlags::POLLIN));
        self
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// If stdin cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let watched: Vec<_> = self.watched.iter().map(|(fd, flags)| (fd.as_fd(), *flags)).collect();
        let input = self.input.get_ref().as_fd();
        // Lines that were read ahead need no waiting, but an end that came first counts.
        let read_ahead = !self.input.buffer().is_empty();
        if !wait_for_input(input, &watched, !read_ahead)? {
            return Ok(None);
        }
        read_line(&mut self.input, self.limit)
    }
}

/// Waits until there is something to read (or the end of it), or only looks. False: one of the
/// others came first.
fn wait_for_input(
    input: BorrowedFd<'_>,
    watched: &[(BorrowedFd<'_>, PollFlags)],
    wait: bool,
) -> io::Result<bool> {
    let timeout = if wait { PollTimeout::NONE } else { PollTimeout::ZERO };
    let mut fds = vec![PollFd::new(input, PollFlags::POLLIN)];
    fds.extend(watched.iter().map(|&(fd, flags)| PollFd::new(fd, flags)));
    loop {
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            Err(why) => return Err(why.into()),
            Ok(_) => return Ok(!fds[1..].iter().any(|fd| fd.any().unwrap_or_default())),
        }
    }
}

/// Reads the next line, or `None` at the end of the input. A last line without a newline counts.
///
/// # Errors
/// Those of `reader`.
pub fn read_line(reader: &mut impl BufRead, limit: usize) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    let mut length = 0_usize;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok((length > 0).then(|| finish(text, length, limit)));
        }
        let newline = chunk.iter().position(|&byte| byte == b'\n');
        let part = newline.unwrap_or(chunk.len());
        length += part;
        if length <= limit {
            text.extend_from_slice(&chunk[..part]);
        } else {
            text = Vec::new();
        }
        reader.consume(newline.map_or(part, |at| at + 1));
        if newline.is_some() {
            return Ok(Some(finish(text, length, limit)));
        }
    }
}

fn finish(text: Vec<u8>, length: usize, limit: usize) -> Line {
    if length > limit { Line::TooLong } else { Line::Text(text) }
}

/// Writes `line` and a newline, and flushes: the next stage may be waiting for just this line.
///
/// # Errors
/// Those of `writer`.
pub fn write_line(writer: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let mut whole = Vec::with_capacity(line.len() + 1);
    whole.extend_from_slice(line);
    whole.push(b'\n');
    writer.write_all(&whole)?;
    writer.flush()
}

/// Writes `value` as one line of JSON, and flushes.
///
/// # Errors
/// Those of `writer`.
pub fn write_json(writer: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    write_line(writer, &serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8], limit: usize) -> Vec<Line> {
        // A buffer of three bytes, so that lines span several reads.
        let mut reader = BufReader::with_capacity(3, input);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader, limit).expect("a slice cannot fail") {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn a_line_ends_at_the_newline_or_at_the_end_of_the_input() {
        let text = |s: &str| Line::Text(s.into());
        assert_eq!(lines(b"one\n\nthree", 10), [text("one"), text(""), text("three")]);
    }

    #[test]
    fn a_line_over_the_limit_is_dropped_and_the_next_one_is_read() {
        let text = |s: &str| Line::Text(s.into());
        assert_eq!(lines(b"12345\n123456\n1234", 5), [text("12345"), Line::TooLong, text("1234")]);
        assert_eq!(lines(b"123456", 5), [Line::TooLong]);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_wait_for_input() {
        let (input, _writer) = io::pipe().expect("a pipe");
        let (reader, output) = io::pipe().expect("a pipe");
        drop(reader);
        let output = [(output.as_fd(), PollFlags::empty())];
        assert!(!wait_for_input(input.as_fd(), &output, true).expect("poll works"));
    }

    #[test]
    fn a_word_to_stop_ends_the_wait_for_input() {
        let (input, _writer) = io::pipe().expect("a pipe");
        let (stop, mut stopper) = io::pipe().expect("a pipe");
        stopper.write_all(b"x").expect("it fits");
        let stop = [(stop.as_fd(), PollFlags::POLLIN)];
        assert!(!wait_for_input(input.as_fd(), &stop, true).expect("poll works"));
    }

    #[test]
    fn input_and_its_end_end_the_wait() {
        let (input, mut writer) = io::pipe().expect("a pipe");
        let (_reader, output) = io::pipe().expect("a pipe");
        let output = [(output.as_fd(), PollFlags::empty())];
        writer.write_all(b"x").expect("it fits");
        assert!(wait_for_input(input.as_fd(), &output, true).expect("poll works"));
        drop(writer);
        assert!(wait_for_input(input.as_fd(), &output, true).expect("poll works"));
    }
}
