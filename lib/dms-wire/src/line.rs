//! Reading and writing one line.
//!
//! A line that is too long is thrown away while it is read, so that no peer can make us hold more
//! than [`MAX_LINE`] bytes, and the next line is read as if nothing had happened.

use std::io::{self, BufRead, Write};

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
}
