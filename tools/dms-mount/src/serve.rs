//! The line filter: a request line in, a response line out.

use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Line, Lines, MAX_LINE, Request, Response, write_line};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::node::Node;

/// Serves until the end of the input. An error response of an earlier stage goes on untouched.
pub(crate) fn serve(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let lines = Lines::on_stdin(MAX_LINE).and_then(Lines::while_read);
    let mut lines = lines.context("unable to read", "stdin")?.until(stop()?);
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let answer = match line {
            Line::TooLong => Response::too_long(),
            Line::Text(line) => match Request::parse(&line) {
                Ok(request) => {
                    let _about = dms_cli::about(&request.about(None));
                    node.carry_out(&request)
                }
                Err(_) if Response::is_error_line(&line) => {
                    exit = Exit::No;
                    if !write(&mut output, &line)? {
                        break;
                    }
                    continue;
                }
                Err(why) => Response::invalid(&why),
            },
        };
        if answer.is_error() {
            exit = Exit::No;
        }
        if !write(&mut output, &answer.to_line())? {
            break;
        }
    }
    Ok(exit)
}

/// Readable after SIGTERM or SIGINT: what is being mounted or unmounted is brought to its end, and
/// no further request is taken.
pub(crate) fn stop() -> Result<OwnedFd, Failure> {
    let what = ("unable to wait for", "signals");
    let (stop, stopper) = UnixStream::pair().context(what.0, what.1)?;
    for signal in [SIGTERM, SIGINT] {
        let stopper = stopper.try_clone().context(what.0, what.1)?;
        signal_hook::low_level::pipe::register(signal, stopper).context(what.0, what.1)?;
    }
    Ok(stop.into())
}

/// False: nobody reads any more.
fn write(output: &mut impl Write, line: &[u8]) -> Result<bool, Failure> {
    match write_line(output, line) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(why) => Err(why).context("unable to write", "stdout"),
    }
}
