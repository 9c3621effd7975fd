//! A program in a session of its own, without another that makes the session and becomes it: where
//! much is mounted at once, each start counts. Std's Command cannot make one.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use nix::libc::POSIX_SPAWN_SETSID;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal};

/// Starts it with nothing to read, and its words going to `output`; says its number, which is the
/// session's. Of the command, its program, arguments and the variables that are set: these are its
/// whole environment. It stands where we do, and has none of our descriptors that are
/// close-on-exec.
pub(crate) fn start(command: &Command, output: &PipeWriter) -> io::Result<i32> {
    let program = text(command.get_program())?;
    let arguments = command.get_args().map(text).collect::<io::Result<Vec<_>>>()?;
    let arguments: Vec<CString> = std::iter::once(program.clone()).chain(arguments).collect();
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = variables.map(|(name, value)| text(&[name, value].join(OsStr::new("="))));
    let environment = variables.collect::<io::Result<Vec<_>>>()?;

    let nothing = File::open("/dev/null")?;
    let mut files = PosixSpawnFileActions::init()?;
    files.add_dup2(nothing.as_raw_fd(), 0)?;
    files.add_dup2(output.as_raw_fd(), 1)?;
    files.add_dup2(output.as_raw_fd(), 2)?;
    let mut attributes = PosixSpawnAttr::init()?;
    // Our runtime ignores it; what we start is not to.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&pipe)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let session = PosixSpawnFlags::from_bits_retain(POSIX_SPAWN_SETSID.into());
    let signals = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    attributes.set_flags(session | signals)?;
    Ok(posix_spawnp(&program, &files, &attributes, &arguments, &environment)?.as_raw())
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;

    use super::*;

    fn run(command: &Command) -> io::Result<(i32, String)> {
        let (mut reader, writer) = io::pipe()?;
        let pid = start(command, &writer)?;
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said)?;
        waitpid(Pid::from_raw(pid), None)?;
        Ok((pid, said))
    }

    #[test]
    fn it_leads_its_session_and_has_what_it_was_given_and_no_more() {
        let script =
            "cut -d' ' -f1,6 /proc/$$/stat; readlink /proc/$$/fd/0; echo $1 >&2; /usr/bin/env";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", "a b"]).env("X", "y=z").env("PATH", "/usr/bin:/bin");
        let (pid, said) = run(&command).expect("sh is there");
        let mut lines: Vec<&str> = said.lines().collect();
        lines[3..].sort_unstable();
        let wanted = format!("{pid} {pid}");
        // What the shell adds by itself.
        lines.retain(|line| !["PWD=", "OLDPWD=", "_="].iter().any(|its| line.starts_with(its)));
        assert_eq!(lines, [&wanted, "/dev/null", "a b", "PATH=/usr/bin:/bin", "X=y=z"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let why = run(&Command::new("/no/such/program")).expect_err("it is not there");
        assert_eq!(why.kind(), io::ErrorKind::NotFound);
    }
}
