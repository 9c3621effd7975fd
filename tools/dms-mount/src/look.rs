//! The process that looks where a look can hang: at a mount, at another process. It is this program,
//! as `dms-mount look`; it is kept for the next question, since to start it takes longer than to
//! look, and killed if its answer takes too long.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure};
use dms_wire::Deadline;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::{probe, scan};

/// How long one that was killed is waited for: then nothing of it keeps a mount busy.
const END: Duration = Duration::from_secs(1);

/// What there is to be looked at.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Mount(probe::Question),
    Processes(scan::Question),
}

/// What was seen, or why nothing could be.
type Answer = Result<Vec<String>, String>;

/// One that waits for a question. Whoever asks beside others starts another.
static KEPT: Mutex<Option<Looker>> = Mutex::new(None);

/// Has it looked at. `None`: no answer in time.
pub(crate) fn ask(question: &Question, bound: Duration) -> io::Result<Option<Vec<String>>> {
    Asked::about(question)?.answer(bound)
}

/// A question that is being looked into. Whoever drops it does not want to know any more, and the
/// process that looks is ended with it.
pub(crate) struct Asked {
    looker: Looker,
    line: String,
    /// Whether it was written to one that lived.
    is_heard: bool,
}

impl Asked {
    /// Asks, and does not wait.
    pub(crate) fn about(question: &Question) -> io::Result<Asked> {
        let line = serde_json::to_string(question)? + "\n";
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut looker = kept.map_or_else(Looker::start, Ok)?;
        let is_heard = looker.tell(&line)?;
        Ok(Asked { looker, line, is_heard })
    }

    /// What was seen. `None`: no answer in time.
    pub(crate) fn answer(mut self, bound: Duration) -> io::Result<Option<Vec<String>>> {
        let until = Deadline::after(bound);
        let mut said = if self.is_heard { self.looker.hear(until)? } else { Said::Ended };
        if let Said::Ended = said {
            // Somebody may have killed it while it was kept.
            self.looker = Looker::start()?;
            said = if self.looker.tell(&self.line)? { self.looker.hear(until)? } else { said };
        }
        let answer: Answer = match said {
            Said::Answer(line) => serde_json::from_str(&line)?,
            Said::Ended => return Err(io::Error::other("the process that looks has ended")),
            Said::Nothing => return Ok(None),
        };
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.looker);
        answer.map(Some).map_err(io::Error::other)
    }
}

struct Looker {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// What came of a question.
enum Said {
    Answer(String),
    Ended,
    Nothing,
}

impl Looker {
    fn start() -> io::Result<Looker> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("look").env_clear().process_group(0);
        // It can outlive us, if it hangs: what we write to is not for it to keep open.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Looker { child, stdin, stdout }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// False: it has ended.
    fn tell(&mut self, line: &str) -> io::Result<bool> {
        match self.stdin.write_all(line.as_bytes()) {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    fn hear(&mut self, until: Deadline) -> io::Result<Said> {
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        while answer.last() != Some(&b'\n') {
            if !is_readable(&self.stdout, until)? {
                return Ok(Said::Nothing);
            }
            match self.stdout.read(&mut chunk) {
                Ok(0) => return Ok(Said::Ended),
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(Said::Answer(String::from_utf8_lossy(&answer).into_owned()))
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let id = self.child.id();
        let (done, wait) = channel();
        // It may hang in the kernel for long, and is reaped when it does not any more.
        thread::spawn(move || {
            let pid = nix::unistd::Pid::from_raw(id.cast_signed());
            let _ = nix::sys::wait::waitpid(pid, None);
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(END);
    }
}

/// False: not in time.
pub(crate) fn is_readable(file: &impl AsFd, until: Deadline) -> io::Result<bool> {
    loop {
        let millis = until.left().as_millis().clamp(1, 60_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if until.passed() => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(why) => return Err(why.into()),
        }
    }
}

/// Its own main: an answer for each question, a line of JSON each, until nobody asks any more.
pub(crate) fn main(mut output: impl Write) -> Result<Exit, Failure> {
    for line in io::stdin().lock().lines() {
        let line = line.context("unable to read", "stdin")?;
        let question = serde_json::from_str(&line)
            .map_err(|why| Failure::permanent(format!("not a question: {why}")))?;
        let (answer, is_over) = match question {
            Question::Mount(question) => (Ok(vec![question.answer().to_owned()]), true),
            Question::Processes(question) => match question.answer() {
                Ok(seen) => (Ok(seen.found), seen.is_over),
                Err(why) => (Err(why), false),
            },
        };
        let answer: Answer = answer;
        let answer = serde_json::to_string(&answer).map_err(io::Error::from);
        answer
            .and_then(|answer| writeln!(output, "{answer}"))
            .context("unable to write", "stdout")?;
        if !is_over {
            // A thread of ours still looks at what hangs: not to be kept with it.
            break;
        }
    }
    Ok(Exit::Done)
}
