//! The filter form: for each request line, lock, ask the filter, release.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_filter::Lost;
use dms_flock::{Mode, Wait};
use dms_wire::{
    Deadline, ErrorCode, Line, Lines, LockTimeout, MAX_REQUEST, Request, Response, TargetId,
    write_line,
};

use crate::filter::{Filter, Hangs};
use crate::locks::{Locks, Refused, Taken};

/// What the command line says of the locks.
pub(crate) struct Rules {
    /// Locks to take beside the request's own.
    pub(crate) names: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) wait: Wait,
    /// How long to wait for the answer to a request without a deadline.
    pub(crate) patience: Duration,
}

/// What stays the same from line to line.
pub(crate) struct Each<'a> {
    pub(crate) locks: Locks<'a>,
    pub(crate) rules: Rules,
    /// The filter.
    pub(crate) command: Vec<OsString>,
}

/// How long past its deadline a request's answer is waited for: the filter minds it by itself.
const GRACE: Duration = Duration::from_secs(30);

/// The answer to a line.
struct Answer {
    line: Vec<u8>,
    /// What the filter is told behind it, so that a ledger in it can note that nothing was done.
    notice: Option<Vec<u8>>,
}

impl From<&Response> for Answer {
    fn from(response: &Response) -> Answer {
        Answer { line: response.to_line(), notice: None }
    }
}

impl Each<'_> {
    /// Serves until the end of the input. The filter is started once, and anew only if it ends or
    /// hangs; the line that it had then is answered all the same.
    pub(crate) fn serve(&self, mut output: impl Write) -> Result<Exit, Failure> {
        let filter = Filter::start(&self.locks, &self.command)?;
        let mut filter = Running { current: Some(filter), lost: None };
        let mut errors = false;
        let lines = Lines::on_stdin(MAX_REQUEST).and_then(Lines::while_read);
        let mut lines = lines.context("unable to read", "stdin")?;
        while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
            let answer = match line {
                Line::TooLong => Answer::from(&Response::too_long()),
                Line::Text(line) => match Request::peek(&line) {
                    Err(why) => Answer::from(&Response::invalid(&why)),
                    Ok((target, deadline)) => self.answer(&mut filter, &line, &target, deadline)?,
                },
            };
            let written = write_line(&mut output, &answer.line);
            // Whoever waits for it has it.
            errors |= Response::parse(&answer.line).is_ok_and(|response| response.is_error());
            match written {
                Err(why) if why.kind() == ErrorKind::BrokenPipe => break,
                written => written.context("unable to write", "stdout")?,
            }
            if let Some(notice) = answer.notice {
                // It has been answered: what comes back is of no use.
                self.ask(&mut filter, &notice, GRACE)?;
            }
        }
        let end = match filter.current {
            Some(filter) => filter.finish()?,
            None => filter.lost,
        };
        Ok(exit(errors, end))
    }

    /// One line under its locks.
    fn answer(
        &self,
        filter: &mut Running,
        line: &[u8],
        target: &TargetId,
        deadline: Option<Deadline>,
    ) -> Result<Answer, Failure> {
        let _about = dms_cli::about(&format!("target {target}"));
        let taken = match self.lock(target, deadline) {
            Ok(taken) => taken,
            Err(answer) => return Ok(answer.with_notice(line)),
        };
        let patience = deadline.map_or(self.rules.patience, |deadline| deadline.left() + GRACE);
        let line = Request::with_lock_wait(line, taken.waited);
        let answer = self.ask(filter, &line, patience)?;
        Ok(Answer { line: answer, notice: None })
    }

    /// Asks the filter. One that hangs has ended when this returns.
    fn ask(
        &self,
        filter: &mut Running,
        line: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let mut running = match filter.current.take_if(|running| !running.is_spent()) {
            Some(running) => running,
            None => {
                if let Some(spent) = filter.current.take() {
                    filter.lose(spent, Hangs::No)?;
                }
                Filter::start(&self.locks, &self.command)?
            }
        };
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

    /// The node's lock shared, the target's exclusive, and the names of the command line.
    fn lock(&self, target: &TargetId, deadline: Option<Deadline>) -> Result<Taken, Unlocked> {
        let Rules { names, mode, wait, .. } = &self.rules;
        let mut wanted: Vec<(String, Mode)> =
            names.iter().map(|name| (name.clone(), *mode)).collect();
        wanted.push(("node".to_owned(), Mode::Shared));
        wanted.push((format!("target.{target}"), Mode::Exclusive));
        let wait = match (*wait, deadline) {
            (Wait::For(wait), Some(deadline)) => Wait::For(wait.min(deadline.left())),
            (wait, _) => wait,
        };
        match self.locks.take(wanted, wait) {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(refused)) => Err(Unlocked::Refused(refused)),
            Err(why) => Err(Unlocked::Failed(why)),
        }
    }
}

/// Why a request has no locks.
enum Unlocked {
    Refused(Refused),
    Failed(Failure),
}

impl Unlocked {
    /// The answer to this request.
    fn with_notice(&self, line: &[u8]) -> Answer {
        let response = match self {
            Unlocked::Failed(why) => Response::error(ErrorCode::Internal, why.to_string()),
            Unlocked::Refused(refused) => {
                let busy = if refused.is_for_ever() { "" } else { "timeout: " };
                Response::error(ErrorCode::LockTimeout, format!("{busy}{refused}"))
            }
        };
        let notice = match self {
            Unlocked::Refused(refused) => LockTimeout::notice(line, &response, refused.waited()),
            Unlocked::Failed(_) => None,
        };
        Answer { line: response.to_line(), notice }
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
