//! Programs that are run to their end, but never longer than a bound.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use dms_flock::Lock;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How a group is ended. sudo(8) hands TERM on to what it has started; nobody can hand KILL on.
const ENDS: [(Signal, Duration); 2] =
    [(Signal::SIGTERM, Duration::from_millis(300)), (Signal::SIGKILL, Duration::from_secs(1))];

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What became of a program.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ended(Ended),
    /// It took too long: its group was killed, and is gone.
    Killed,
    /// Not even that has ended all of it: it hangs in the kernel, or has left its group. It is
    /// reaped when it ends.
    Outlives,
}

/// Runs a program in a process group of its own, which is killed if it takes too long.
///
/// It inherits `lock`, if one is given: what outlives its bound keeps it.
pub(crate) fn run(
    command: &mut Command,
    bound: Duration,
    lock: Option<&Lock>,
) -> io::Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    let passed = lock.map(Lock::pass_on).transpose()?;
    let child = command.spawn()?;
    drop(passed);
    finish(child, Vec::new(), bound)
}

/// Runs a program of ours that answers this input, as [`run`] runs one; it logs where we do.
pub(crate) fn ask(command: &mut Command, input: Vec<u8>, bound: Duration) -> io::Result<Outcome> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    finish(command.process_group(0).spawn()?, input, bound)
}

fn finish(mut child: Child, input: Vec<u8>, bound: Duration) -> io::Result<Outcome> {
    let group = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
    let (done, wait) = channel();
    thread::spawn(move || {
        if let Some(mut stdin) = child.stdin.take() {
            // Whether it has read it all, its answer tells.
            let _ = stdin.write_all(&input);
        }
        // Nobody listens any more if it took too long.
        let _ = done.send(child.wait_with_output());
    });
    let output = match wait.recv_timeout(bound) {
        Ok(output) => output?,
        Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("its waiter is gone")),
        Err(RecvTimeoutError::Timeout) => {
            for (signal, patience) in ENDS {
                let _ = killpg(group, signal);
                // Usually it is gone at once; then its effects are over when we return.
                if wait.recv_timeout(patience).is_ok() {
                    return Ok(Outcome::Killed);
                }
            }
            return Ok(Outcome::Outlives);
        }
    };
    Ok(Outcome::Ended(Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let ended = run(&mut command, Duration::from_millis(100), None).expect("sh is there");
        assert!(matches!(ended, Outcome::Killed) && start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_has_left_its_group_is_known_to_outlive_it() {
        let mut command = Command::new("setsid");
        command.args(["sleep", "3"]);
        let ended = run(&mut command, Duration::from_millis(500), None).expect("it is there");
        assert!(matches!(ended, Outcome::Outlives), "{ended:?}");
    }

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo one >&2; echo two >&2; exit 3"]);
        let ended = run(&mut command, Duration::from_secs(10), None).expect("sh is there");
        let Outcome::Ended(ended) = ended else { panic!("it takes no time: {ended:?}") };
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(3), "out\n"));
        assert_eq!(ended.stderr, "one two");
    }
}
