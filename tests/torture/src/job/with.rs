//! The same with dms-with, on the node: what it asks, and when, is its own business.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use dms_tests::Dice;
use serde_json::json;

use super::{HANGING, Job, plan_work};
use crate::ask::{Way, end_tree};
use crate::clock::now;

impl Job<'_> {
    pub(super) fn work_with(&self, dice: &mut Dice) {
        let (work, is_open) = plan_work(dice);
        let node = &self.world.nodes[self.node];
        let boot = node.boot_number();
        let id = self.question(Way::Pipe, "mount", 0).id;
        let request = node.path(&format!("logs/request-{}", self.hold()));
        let mut command = self.command(&request, dice, work, is_open);
        // Twice the five attempts that it makes, and what a pipeline may take beyond its time.
        let bound = 2.0 * (3.0 * self.world.hub.options.timeout + 60.0) + work + 20.0;
        let more = json!({"id": id, "action": "with", "way": "dms-with", "bound": bound});
        let asked = self.say("ask", more);
        let mut child = command.spawn().expect("it is this program");
        let end = self.wait(&mut child, bound, boot);
        let seconds = now() - asked;
        // It may have been killed, and the command goes on.
        self.wait_for_witness(boot, work);
        let seen = self.seen();
        if let Some(began) = seen.began {
            self.say("hold", json!({"asked": asked, "told": began}));
            self.say("left", json!({"ended": seen.ended.is_some(), "at": seen.ended}));
        }
        let code = end.and_then(|end| end.code());
        let is_cut = code == Some(128 + 9);
        let word = match code {
            Some(0) => "success".to_owned(),
            Some(code) if !is_cut => format!("exit {code}"),
            _ => "none".to_owned(),
        };
        let more = json!({"id": id, "action": "with", "way": "dms-with", "word": word,
            "seconds": seconds, "late": end.is_none(), "signalled": is_cut, "code": code});
        self.say("told", more);
        let _ = fs::remove_file(request);
    }

    fn command(&self, request: &Path, dice: &mut Dice, seconds: f64, is_open: bool) -> Command {
        let node = &self.world.nodes[self.node];
        let question = self.question(Way::Pipe, "mount", 0);
        fs::write(request, self.world.line(&question)).expect("room for it");
        let mut args = vec!["--strict".to_owned(), request.display().to_string(), "--".into()];
        args.push(std::env::current_exe().expect("/proc is there").display().to_string());
        args.extend(self.witness_args(seconds, is_open));
        let mut command = node.command("dms-with", &args);
        let pipelines = ["dms-pipeline", "dms-call --wait-for-listener"];
        command.env("DMS_PIPELINE", pipelines[usize::from(dice.below(2) == 1)]);
        let words = self.world.words_file(&question.id);
        let words = File::options().create(true).append(true).open(words);
        command.stdout(Stdio::null()).stderr(words.expect("room for it"));
        command
    }

    /// How it ended; `None` if it had to be ended.
    fn wait(&self, child: &mut Child, bound: f64, boot: u32) -> Option<ExitStatus> {
        let (began, stalled) = (now(), self.world.stalled());
        while now() - began <= bound + self.world.stalled() - stalled {
            if let Ok(Some(end)) = child.try_wait() {
                return Some(end);
            }
            // It waits for its command, which may hang, too.
            let has_begun = || fs::metadata(self.log()).is_ok_and(|log| log.len() > 0);
            if now() - began > 2.0 * HANGING && has_begun() {
                self.revive_after(began + 2.0 * HANGING, boot);
            }
            thread::sleep(Duration::from_millis(5));
        }
        end_tree(child);
        let _ = child.wait();
        None
    }

    /// Until it has ended, or its node has.
    fn wait_for_witness(&self, boot: u32, work: f64) {
        let end = now() + work + HANGING;
        let log = self.log();
        let node = &self.world.nodes[self.node];
        let runs = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let name = self.hold();
            !text.is_empty()
                && !text.contains("\"event\":\"end\"")
                && node.boot_number() == boot
                && node.processes_of("witness").iter().any(|one| {
                    // One that waits in the kernel shows its name only.
                    one.command == "torture" || one.command.split(' ').any(|word| word == name)
                })
        };
        while runs() {
            self.revive_after(end, boot);
            thread::sleep(Duration::from_millis(30));
        }
    }
}
