//! Reading and writing one line.
//!
//! A line that is too long is thrown away while it is read, so that no peer can make us hold more
//! than [`MAX_LINE`] bytes, and the next line is read as if nothing had happened.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};

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

/// The lines on stdin, for as long as somebody reads what we write on stdout.
///
/// In a pipeline a dead stage is noticed by the ones behind it, whose input ends. The ones before
/// it would notice only when they next write: they wait for both, so that a pipeline that has lost
/// any of its stages ends as a whole, and whoever waits for its answer learns of it.
#[derive(Debug)]
pub struct Lines {
    input: BufReader<File>,
    output: io::Stdout,
    limit: usize,
}

impl Lines {
    /// Takes stdin over. Lines longer than `limit` are [`Line::TooLong`].
    ///
    /// # Errors
    /// If stdin is closed.
    pub fn on_stdin(limit: usize) -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Lines { input: BufReader::with_capacity(64 << 10, input), output: io::stdout(), limit })
    }

    /// The next line; `None` at the end of the input, or once nobody reads our output.
    ///
    /// # Errors
    /// If stdin cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        if self.input.buffer().is_empty()
            && !wait_for_input(self.input.get_ref().as_fd(), self.output.as_fd())?
        {
            return Ok(None);
        }
        read_line(&mut self.input, self.limit)
    }
}

/// Waits until there is something to read (or the end of it). False: the reader of `output` is
/// gone.
fn wait_for_input(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(input, PollFlags::POLLIN), PollFd::new(output, PollFlags::empty())];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(why) => return Err(why.into()),
            Ok(_) => {
                let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
                let [input, output] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
                return Ok(!output.intersects(gone) || input.contains(PollFlags::POLLIN));
            }
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
        assert!(!wait_for_input(input.as_fd(), output.as_fd()).expect("poll works"));
    }

    #[test]
    fn input_that_is_there_is_read_first() {
        let (input, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"x").expect("it fits");
        let (reader, output) = io::pipe().expect("a pipe");
        assert!(wait_for_input(input.as_fd(), output.as_fd()).expect("poll works"));
        drop(reader);
        assert!(wait_for_input(input.as_fd(), output.as_fd()).expect("poll works"));
        drop(writer);
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut { input }, &mut rest).expect("it ends");
        assert_eq!(rest, b"x");
    }
}
