//! The pipeline: which it is, and one run of it, for one request.

use std::io::{self, PipeReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use dms_cli::{Config, Context, Failure, Settings, random_id};
use dms_filter::{Filter, Lost};
use dms_flock::Access;
use dms_flock::life::{self, Life};
use dms_wire::{ErrorCode, MAX_LINE, Response};

/// The node's own.
const OF_THE_NODE: &str = "dms-pipeline";

/// The ledger here, and the listener of the node, as the Python client had it.
const OF_A_CLIENT: &str =
    "dms-lock --each -- sh -c 'dms-ledger plan | dms-call | dms-ledger commit'";

/// How long it may take to end, once it has answered.
const FINISH: Duration = Duration::from_secs(30);

/// A command for sh(1) that answers requests, and how to run it.
#[derive(Debug)]
pub(crate) struct Pipeline {
    command: String,
    lock_dir: PathBuf,
    /// Whether its log is at the level that somebody has set.
    has_level: bool,
}

/// Where what it says goes.
pub(crate) enum Voice {
    /// Where ours goes.
    Ours,
    /// To the terminal, from which the line of what is being waited for has to be taken first.
    Terminal,
}

impl Pipeline {
    /// What is set; else this node's, or a client's. On a node with a broker the ledger may be at
    /// either end of it, and a wrong guess would make a second one: so it is not guessed there.
    pub(crate) fn choose(config: &Config, settings: &Settings) -> Result<Pipeline, Failure> {
        let command = match config.get("DMS_PIPELINE")? {
            Some(value) => value.text,
            None => {
                let guess = match settings.rabbitmq_url {
                    None => OF_THE_NODE,
                    Some(_) if !is_installed("dms-mount") => OF_A_CLIENT,
                    Some(_) => return Err(unclear()),
                };
                config.get_or("DMS_PIPELINE", || guess.to_owned())?.text
            }
        };
        let has_level = config.get("DMS_LOG_LEVEL")?.is_some();
        Ok(Pipeline { command, lock_dir: settings.lock_dir.clone(), has_level })
    }

    /// Starts it, with a life lock of its own: what it had begun can be settled once it has ended.
    /// Also returns what it says, if that is not for our own standard error.
    pub(crate) fn start(&self, voice: &Voice) -> Result<(Running, Option<PipeReader>), Failure> {
        let id = random_id().context("unable to make", "a random id")?;
        let life = Life::begin(&self.lock_dir, Access::of_directory(&self.lock_dir), &id)
            .context("unable to make a life lock in", self.lock_dir.display())?;
        let _passed = life.pass_on().context("unable to pass on", life.path().display())?;
        let mut command = Command::new("sh");
        command.args(["-c", &self.command]).env_remove("KEYSTONE_TOKEN");
        command.env(life::VARIABLE, life.path()).env(life::ONE_AT_A_TIME, "1");
        let mut said = None;
        if matches!(voice, Voice::Terminal) {
            let (reader, writer) = io::pipe().context("unable to make", "a pipe")?;
            command.stderr(Stdio::from(writer));
            if !self.has_level {
                // For people: what is going on is shown otherwise.
                command.env("DMS_LOG_LEVEL", "WARNING");
            }
            said = Some(reader);
        }
        let filter = Filter::start(&mut command, MAX_LINE).context("unable to run", "sh")?;
        Ok((Running { filter, life: life.path().to_owned() }, said))
    }
}

/// A pipeline that runs. What can be told of its end is, in the answer.
pub(crate) struct Running {
    filter: Filter,
    life: PathBuf,
}

impl Running {
    /// Its process group.
    pub(crate) fn leader(&self) -> u32 {
        self.filter.leader()
    }

    /// Asks it, and ends it. False: there is no answer, only what can be said of that.
    pub(crate) fn ask(mut self, line: &[u8], patience: Duration) -> (Response, bool) {
        let answer = match self.filter.ask(line, patience) {
            Ok(answer) => {
                // It has said what there is to say.
                let _ = self.filter.finish(FINISH);
                match Response::parse(&answer) {
                    Ok(answer) => (answer, true),
                    Err(why) => (unknown(ErrorCode::Internal, &why.0), false),
                }
            }
            Err(Lost::TimedOut) => {
                let _ = self.filter.kill();
                let text = format!("timeout: no answer within {:.0} s", patience.as_secs_f64());
                (unknown(ErrorCode::Timeout, &text), false)
            }
            Err(Lost::Ended) => (lost(self.filter.end().ok().flatten()), false),
            Err(Lost::Confused) => {
                let _ = self.filter.end();
                (unknown(ErrorCode::Internal, "it did not answer with one line"), false)
            }
        };
        if let Err(why) = life::bury(&self.life) {
            log::warn!("unable to remove {}: {why}", self.life.display());
        }
        answer
    }
}

/// A pipeline that cannot be run, or whose settings are no good, will not do better next time.
fn lost(end: Option<ExitStatus>) -> Response {
    let how = end.map_or("it does not end".to_owned(), |end| end.to_string());
    let text = format!("the pipeline ended before it answered ({how})");
    match end.map(|end| (end.code(), end.signal())) {
        Some((Some(100 | 126 | 127), _)) => Response::error(ErrorCode::Validation, text),
        _ => unknown(ErrorCode::Internal, &text),
    }
}

fn unknown(code: ErrorCode, why: &str) -> Response {
    Response::error(code, format!("{why}; the outcome is unknown"))
}

fn unclear() -> Failure {
    Failure::permanent(
        "DMS_PIPELINE is not set, and this is a node with a broker: is the ledger on the node \
         (dms-pipeline, or dms-call for all nodes) or at the client, see dms-with(1)",
    )
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |file: &Path| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).any(|dir| is_program(&dir.join(program)))
}
