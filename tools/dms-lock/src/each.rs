//! The filter form: for each request line, lock, ask the filter, release.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_filter::Lost;
use dms_flock::{Lock, Mode, Wait};
use dms_wire::{
    Deadline, ErrorCode, Line, Lines, MAX_REQUEST, Request, Response, TargetId, write_line,
};

use crate::filter::{Filter, Hangs};
use crate::locks::LockDir;

/// What stays the same from line to line.
pub(crate) struct Rules<'a> {
    pub(crate) locks: &'a LockDir,
    /// Locks to take beside the request's own.
    pub(crate) names: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) wait: Wait,
    /// How long to wait for the answer to a request without a deadline.
    pub(crate) patience: Duration,
}

/// How long past its deadline a request's answer is waited for: the filter minds it by itself.
const GRACE: Duration = Duration::from_secs(30);

/// Serves until the end of the input. The filter is started once, and anew only if it ends or
/// hangs; the line that it had then is answered all the same.
pub(crate) fn serve(
    rules: &Rules<'_>,
    command: &[OsString],
    mut output: impl Write,
) -> Result<Exit, Failure> {
    let mut filter = Running { current: Some(Filter::start(rules.locks, command)?), lost: None };
    let mut errors = false;
    let lines = Lines::on_stdin(MAX_REQUEST).and_then(Lines::while_read);
    let mut lines = lines.context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let answer = match line {
            Line::TooLong => Response::too_long().to_line(),
            Line::Text(line) => match Request::peek(&line) {
                Err(why) => Response::invalid(&why).to_line(),
                Ok((target, deadline)) => {
                    answer(rules, &mut filter, command, &line, &target, deadline)?
                }
            },
        };
        errors |= Response::parse(&answer).is_ok_and(|response| response.is_error());
        match write_line(&mut output, &answer) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => break,
            written => written.context("unable to write", "stdout")?,
        }
    }
    let end = match filter.current {
        Some(filter) => filter.finish()?,
        None => filter.lost,
    };
    Ok(exit(errors, end))
}

/// One line under its locks. A filter that hangs is ended before they are released.
fn answer(
    rules: &Rules<'_>,
    filter: &mut Running,
    command: &[OsString],
    line: &[u8],
    target: &TargetId,
    deadline: Option<Deadline>,
) -> Result<Vec<u8>, Failure> {
    let _held = match lock(rules, target, deadline) {
        Ok(held) => held,
        Err(response) => return Ok(response.to_line()),
    };
    let mut running = match filter.current.take_if(|running| !running.is_spent()) {
        Some(running) => running,
        None => {
            if let Some(spent) = filter.current.take() {
                filter.lose(spent, Hangs::No)?;
            }
            Filter::start(rules.locks, command)?
        }
    };
    let patience = deadline.map_or(rules.patience, |deadline| deadline.left() + GRACE);
    match running.ask(line, patience) {
        Ok(answer) => {
            filter.current = Some(running);
            Ok(answer)
        }
        Err(why) => {
            let hangs = if matches!(why, Lost::TimedOut) { Hangs::Yes } else { Hangs::No };
            filter.lose(running, hangs)?;
            Ok(explain(why, patience).to_line())
        }
    }
}

/// The filter, and how the last one that was lost had ended.
struct Running {
    current: Option<Filter>,
    lost: Option<ExitStatus>,
}

impl Running {
    /// Ends what is left of a filter that cannot be used any more.
    fn lose(&mut self, filter: Filter, hangs: Hangs) -> Result<(), Failure> {
        let end = filter.end(hangs)?;
        let how = end.map_or("it does not end".to_owned(), |end| end.to_string());
        log::warn!("the filter was lost ({how}) and is started anew");
        self.lost = end;
        Ok(())
    }
}

fn explain(lost: Lost, patience: Duration) -> Response {
    let (code, text) = match lost {
        Lost::Ended | Lost::Confused => (ErrorCode::Internal, lost.to_string()),
        Lost::TimedOut => (
            ErrorCode::Timeout,
            format!("timeout: no answer within {:.0} s", patience.as_secs_f64()),
        ),
    };
    Response::error(code, format!("{text}; the outcome is unknown"))
}

/// The node's lock shared, the target's exclusive, and the names of the command line.
fn lock(
    rules: &Rules<'_>,
    target: &TargetId,
    deadline: Option<Deadline>,
) -> Result<Vec<Lock>, Response> {
    let mut wanted: Vec<(String, Mode)> =
        rules.names.iter().map(|name| (name.clone(), rules.mode)).collect();
    wanted.push(("node".to_owned(), Mode::Shared));
    wanted.push((format!("target.{target}"), Mode::Exclusive));
    let wait = match (rules.wait, deadline) {
        (Wait::For(wait), Some(deadline)) => Wait::For(wait.min(deadline.left())),
        (wait, _) => wait,
    };
    match rules.locks.try_take(wanted, wait) {
        Ok(Ok(held)) => Ok(held),
        Ok(Err(busy)) => Err(Response::error(ErrorCode::LockTimeout, format!("timeout: {busy}"))),
        Err(why) => Err(Response::error(ErrorCode::Internal, why.to_string())),
    }
}

/// What the filter's own end says; if that is nothing, 1 where any answer said error.
fn exit(errors: bool, end: Option<ExitStatus>) -> Exit {
    match end.map(|end| (end.code(), end.signal())) {
        Some((Some(code), _)) if code > 1 => Exit::Code(u8::try_from(code).unwrap_or(111)),
        Some((None, Some(_))) => Exit::Temporary,
        _ if errors => Exit::No,
        Some((Some(1), _)) => Exit::No,
        _ => Exit::Done,
    }
}
