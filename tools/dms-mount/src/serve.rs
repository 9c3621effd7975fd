//! The line filter: a request line in, a response line out.

use std::io::{ErrorKind, Write};

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Line, Lines, MAX_LINE, Request, Response, write_line};

use crate::node::Node;

/// Serves until the end of the input. An error response of an earlier stage goes on untouched.
pub(crate) fn serve(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut lines = Lines::on_stdin(MAX_LINE).context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let answer = match line {
            Line::TooLong => Response::too_long(),
            Line::Text(line) if Response::is_error_line(&line) => {
                exit = Exit::No;
                if !write(&mut output, &line)? {
                    break;
                }
                continue;
            }
            Line::Text(line) => match Request::parse(&line) {
                Ok(request) => node.carry_out(&request),
                Err(why) => Response::invalid(&why),
            },
        };
        if answer.is_error() {
            exit = Exit::No;
        }
        let text = serde_json::to_vec(&answer).expect("a response is plain data");
        if !write(&mut output, &text)? {
            break;
        }
    }
    Ok(exit)
}

/// False: nobody reads any more.
fn write(output: &mut impl Write, line: &[u8]) -> Result<bool, Failure> {
    match write_line(output, line) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(why) => Err(why).context("unable to write", "stdout"),
    }
}
