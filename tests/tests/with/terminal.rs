//! On a terminal, the command is a job of the shell as it is without dms-with.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use dms_tests::{Lab, eventually};

use crate::file;

/// What the shell says when it has the terminal.
const PROMPT: &str = "your-turn> ";

/// An interactive shell on a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    #[track_caller]
    fn new(lab: &Lab) -> Terminal {
        // Set in here: script(1) runs this with the caller's $SHELL, and bash drops an inherited PS1.
        let shell = format!("PS1='{PROMPT}' exec bash --norc --noprofile --noediting -i");
        // As in `command`: whoever runs the tests may ignore signals.
        let before = ["--default-signal=HUP,INT,QUIT,TERM", "script", "-qfec", &shell, "/dev/null"];
        let mut command: Command = lab.command("env", &before);
        command.env("TERM", "xterm").current_dir(lab.path(""));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script(1) is there");
        let keys = child.stdin.take().expect("it is piped");
        let mut stdout = child.stdout.take().expect("it is piped");
        let shown = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                to.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
        });
        Terminal { child, keys, shown }
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("it reads");
    }

    fn shown(&self) -> String {
        self.shown.lock().expect("no panic").clone()
    }

    /// Waits until this has been shown, and forgets what was before it.
    #[track_caller]
    fn wait_for(&mut self, words: &str) -> String {
        let mut found = String::new();
        let shown = Arc::clone(&self.shown);
        eventually(&format!("{words:?} on the terminal, which shows {:?}", self.shown()), || {
            let mut shown = shown.lock().expect("no panic");
            let Some(at) = shown.find(words) else { return false };
            found = shown.drain(..at + words.len()).collect();
            true
        });
        found
    }

    /// A command line, which is shown as it is typed, too.
    #[track_caller]
    fn run(&mut self, line: &str) {
        self.type_in(&format!("{line}\n"));
        self.wait_for(line);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does this once as it is, and once behind dms-with.
#[track_caller]
fn both_ways(what: impl Fn(&mut Terminal, &str)) {
    let lab = Lab::new();
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let behind = format!("dms-with {file} -- ");
    for prefix in ["", &*behind] {
        let mut terminal = Terminal::new(&lab);
        terminal.run("set +H; ulimit -c 0; echo be''gin");
        terminal.wait_for("begin");
        what(&mut terminal, prefix);
        lab.assert_gone("t1");
        assert_eq!(lab.users("t1"), [0; 0]);
    }
}

#[test]
fn ctrl_c_and_ctrl_backslash_end_the_command_and_the_shell_sees_it() {
    both_ways(|terminal, prefix| {
        for (key, code) in [("\x03", 130), ("\x1c", 131)] {
            // dash forgets a signal that comes while it starts a program: hence a builtin.
            terminal.run(&format!("{prefix}sh -c 'echo re\"\"ady; read x'"));
            terminal.wait_for("ready");
            terminal.type_in(key);
            // What is typed before the shell has the terminal back, is the command's.
            terminal.wait_for(PROMPT);
            terminal.run("echo code=$?");
            terminal.wait_for(&format!("code={code}"));
        }
    });
}

#[test]
fn a_command_that_minds_ctrl_c_gets_it_once() {
    both_ways(|terminal, prefix| {
        terminal.run(&format!(
            "{prefix}bash -c 'n=0; trap \"((++n))\" INT; echo re\"\"ady; read x; read x; echo n=$n; exit 5'"
        ));
        terminal.wait_for("ready");
        terminal.type_in("\x03");
        terminal.wait_for("^C");
        terminal.type_in("one\ntwo\n");
        terminal.wait_for("n=1");
        terminal.run("echo code=$?");
        terminal.wait_for("code=5");
    });
}

#[test]
fn ctrl_z_stops_the_job_and_fg_goes_on_with_it() {
    both_ways(|terminal, prefix| {
        terminal.run(&format!("{prefix}sh -c 'echo re\"\"ady; read x; echo \"got $x\"'"));
        terminal.wait_for("ready");
        for _ in 0..2 {
            terminal.type_in("\x1a");
            terminal.wait_for("Stopped");
            terminal.run("echo free");
            terminal.type_in("fg\n");
            terminal.wait_for("sh -c");
        }
        terminal.type_in("words\n");
        terminal.wait_for("got words");
        terminal.run("echo code=$?");
        terminal.wait_for("code=0");
    });
}

#[test]
fn a_command_that_stops_itself_stops_the_job_and_bg_lets_it_end() {
    both_ways(|terminal, prefix| {
        terminal.run(&format!("{prefix}sh -c 'echo re\"\"ady; kill -STOP $$; exit 4'"));
        terminal.wait_for("ready");
        terminal.wait_for("Stopped");
        terminal.run("bg; wait %1; echo code=$?");
        terminal.wait_for("code=4");
    });
}

#[test]
fn the_terminal_is_the_commands() {
    both_ways(|terminal, prefix| {
        let script =
            "test -t 0 && test -t 1 && test -t 2 && stty -echo </dev/tty && echo is=$(tty)";
        terminal.run("tty");
        let device = terminal.wait_for("/dev/pts/");
        assert!(!device.contains("not a tty"));
        terminal.run(&format!("{prefix}sh -c '{script}'"));
        terminal.wait_for("is=/dev/pts/");
        terminal.type_in("stty echo; echo code=$?\n");
        terminal.wait_for("code=0");
        // In the background it may not read the terminal.
        terminal.run(&format!("{prefix}sh -c 'read x; echo \"got $x\"' &"));
        terminal.type_in("\n");
        eventually("it is stopped", || {
            terminal.type_in("jobs\n");
            terminal.shown().contains("Stopped")
        });
        terminal.type_in("fg\n");
        terminal.type_in("words\n");
        terminal.wait_for("got words");
        terminal.type_in("echo code=$?\n");
        terminal.wait_for("code=0");
    });
}

#[test]
fn what_is_waited_for_is_shown_while_it_is_and_only_on_a_terminal() {
    let lab = Lab::new();
    let file = file(&lab, &[lab.request("mount", 1, "t1")]);
    let holder = lab.hold(&["target.t1"]);
    let mut terminal = Terminal::new(&lab);
    terminal.run(&format!("dms-with {file} -- echo is''up; echo code=$?"));
    let line =
        format!("dms-with: mounting t1: waiting for its lock, held by sh (pid {}) (", holder.pid());
    terminal.wait_for(&line);
    terminal.wait_for("(1s)");
    holder.release();
    let until = terminal.wait_for("isup");
    // It is erased before the command says anything.
    let last = until.rsplit("\x1b[K").next().unwrap_or_default();
    assert_eq!(last, "isup", "{until:?}");
    terminal.wait_for("code=0");

    let holder = lab.hold(&["target.t1"]);
    let quiet = std::thread::scope(|scope| {
        let run = scope.spawn(|| lab.feed("dms-with", &[&file, "--", "true"], ""));
        let waits = || lab.processes().iter().any(|process| process.command.contains("--each"));
        eventually("it waits", waits);
        // For longer than it takes until the line is shown.
        std::thread::sleep(std::time::Duration::from_millis(600));
        holder.release();
        run.join().expect("it does not panic")
    });
    assert!(!quiet.expect(0).stderr.contains("mounting t1"), "{quiet}");
}
