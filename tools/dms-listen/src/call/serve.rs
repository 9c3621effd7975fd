//! Line after line, on one connection for as long as there is one.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use dms_cli::{Context, Exit, Failure};
use dms_wire::{Deadline, ErrorCode, Lines, MAX_LINE, Response, write_line};

use crate::amqp::backoff::Backoff;
use crate::amqp::broker::Broker;
use crate::amqp::link::{Link, reason};
use crate::call::ask::{Asked, Session};
use crate::call::line::{Call, Fate};

/// How it is to be done.
pub(crate) struct Caller {
    pub(crate) brokers: Vec<Broker>,
    /// How long to wait for an answer.
    pub(crate) timeout: Duration,
    /// Whether to wait for a listener where there is none.
    pub(crate) waits: bool,
}

/// The lines that come in and the answers that go out.
struct Talk<'a, W> {
    caller: &'a Caller,
    lines: Lines,
    output: W,
    exit: Exit,
}

/// Serves until the end of the input. It connects when it first needs to.
pub(crate) fn serve(caller: &Caller, output: impl Write) -> Result<Exit, Failure> {
    let lines = Lines::on_stdin(MAX_LINE).and_then(Lines::while_read);
    let lines = lines.context("unable to read", "stdin")?;
    let mut talk = Talk { caller, lines, output, exit: Exit::Done };
    let mut next = talk.next_call()?;
    while let Some(call) = next {
        if call.until.passed() {
            talk.answer(&call.late())?;
            next = talk.next_call()?;
            continue;
        }
        next = match connect(&caller.brokers, call.until) {
            Ok(link) => talk.converse(&link, call)?,
            Err(why) => {
                talk.answer(&call.fail(ErrorCode::Broker, &why))?;
                talk.next_call()?
            }
        };
    }
    Ok(talk.exit)
}

impl<W: Write> Talk<'_, W> {
    /// The next line that needs a node, after those that do not were answered.
    fn next_call(&mut self) -> Result<Option<Box<Call>>, Failure> {
        while let Some(line) = self.lines.next_line().context("unable to read", "stdin")? {
            match Fate::of(line, self.caller.timeout) {
                Fate::Call(call) => return Ok(Some(call)),
                Fate::Answer(answer) => self.answer(&answer)?,
                Fate::Pass(line) => {
                    self.exit = Exit::No;
                    self.write(&line)?;
                }
            }
        }
        Ok(None)
    }

    /// Asks until the input ends, or the connection: then the call is returned for which a new one
    /// is needed.
    fn converse(&mut self, link: &Link, call: Box<Call>) -> Result<Option<Box<Call>>, Failure> {
        let channel = match link.channel(call.until.left()) {
            Ok(channel) => channel,
            Err(why) => return self.give_up(&call, &reason(&why)),
        };
        let mut session = match Session::open(link, &channel, call.until.left(), self.caller.waits)
        {
            Ok(session) => session,
            Err(why) => return self.give_up(&call, &reason(&why)),
        };
        let _parting = link.bound_parting();
        let mut next = Some(call);
        let mut is_new = true;
        while let Some(call) = next {
            self.tell_person(&call);
            match session.ask(&call) {
                Asked::Answered(response) => self.answer(&response)?,
                // Whatever the broker still does with it, this connection will not hear of it.
                Asked::Spent(response) => {
                    link.cut();
                    self.answer(&response)?;
                    return self.next_call();
                }
                // The connection broke while nobody needed it.
                Asked::Unsent(_) if !is_new => return Ok(Some(call)),
                Asked::Unsent(why) => return self.give_up(&call, &why),
            }
            is_new = false;
            next = self.next_call()?;
        }
        Ok(None)
    }

    /// Even a new connection is of no use.
    fn give_up(&mut self, call: &Call, why: &str) -> Result<Option<Box<Call>>, Failure> {
        self.answer(&call.fail(ErrorCode::Broker, &format!("the broker failed: {why}")))?;
        self.next_call()
    }

    fn answer(&mut self, response: &Response) -> Result<(), Failure> {
        if response.is_error() {
            self.exit = Exit::No;
        }
        self.write(&response.to_line())
    }

    /// Nobody reads any more: `Lines::while_read` ends the input.
    fn write(&mut self, line: &[u8]) -> Result<(), Failure> {
        match write_line(&mut self.output, line) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("unable to write", "stdout"),
        }
    }

    /// Somebody who typed this wants to know what it waits for.
    fn tell_person(&self, call: &Call) {
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() {
            let seconds = call.until.left().as_secs_f64();
            let (queue, what) = (&call.queue, &call.what);
            let _ =
                writeln!(stderr, "dms-call: waiting up to {seconds:.0} s for {queue} to {what}");
        }
    }
}

/// Connects to the first broker that lets us, as often as its URL says.
pub(crate) fn connect(brokers: &[Broker], until: Deadline) -> Result<Link, String> {
    let rounds = brokers.iter().map(|broker| broker.attempts).max().unwrap_or(1);
    let mut backoff = Backoff::new(brokers[0].retry_delay);
    let mut whys = Vec::new();
    for round in 0..rounds {
        if round > 0 {
            std::thread::sleep(backoff.wait().min(until.left()));
            if until.passed() {
                break;
            }
        }
        whys.clear();
        let tried: Vec<_> = brokers.iter().filter(|broker| round < broker.attempts).collect();
        for (broker, still) in tried.iter().zip((1..=tried.len()).rev()) {
            // One that hangs leaves the next ones their share of the time.
            let patience = until.left() / u32::try_from(still).unwrap_or(u32::MAX);
            match Link::open(broker, "dms-call", patience) {
                Ok(link) => return Ok(link),
                Err(why) => whys.push(why),
            }
        }
    }
    Err(whys.join("; "))
}

/// A moment of the monotonic clock, for channels that wait by it.
pub(crate) fn instant(until: Deadline) -> Instant {
    Instant::now() + until.left()
}
