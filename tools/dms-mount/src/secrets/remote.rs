//! The key manager, asked by a process of its own, which lives as long as one question: both sides.
//!
//! The question and the answer go through pipes: nobody can read them there.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, OpenStack};
use dms_wire::{Deadline, Secret};
use serde::{Deserialize, Serialize};

use super::barbican::{KeyManager, PATIENCE};
use super::{NoCredentials, Result, no};
use crate::child::{self, Outcome};

/// The program that asks.
const PROGRAM: &str = "dms-mount-secret";

/// How much longer than its question it may take: it minds that by itself.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Question {
    openstack: OpenStack,
    /// `None`: whether anybody is there.
    secret: Option<Wanted>,
    /// Seconds of `CLOCK_BOOTTIME`.
    until: f64,
    log_level: String,
    /// What its log lines are about.
    about: String,
}

#[derive(Serialize, Deserialize)]
struct Wanted {
    reference: String,
    token: Option<String>,
}

/// The secret's payload, or who is there; `None`: there is no key manager. Or why not.
type Answer = std::result::Result<Option<String>, String>;

/// The payload of the secret that `reference` names.
pub(super) fn fetch(
    openstack: &OpenStack,
    reference: &str,
    token: Option<&Secret>,
    until: Deadline,
) -> Result<Vec<u8>> {
    let token = token.map(|token| token.reveal().to_owned());
    let wanted = Wanted { reference: reference.to_owned(), token };
    let payload = ask(openstack, Some(wanted), until)?;
    Ok(payload.unwrap_or_default().into_bytes())
}

/// Whether somebody who can be trusted answers; says who. `None`: there is no key manager.
pub(super) fn check(openstack: &OpenStack, until: Deadline) -> Result<Option<String>> {
    ask(openstack, None, until)
}

fn ask(openstack: &OpenStack, secret: Option<Wanted>, until: Deadline) -> Result<Option<String>> {
    let question = Question {
        openstack: openstack.clone(),
        secret,
        until: until.seconds(),
        log_level: log::max_level().to_string(),
        about: dms_cli::about_what(),
    };
    let cannot = |why: std::io::Error| {
        NoCredentials(format!("{}unable to start {PROGRAM}: {why}", super::FAILED))
    };
    let question = serde_json::to_vec(&question).map_err(|why| cannot(why.into()))?;
    let program = dms_cli::companion(PROGRAM).map_err(cannot)?;
    let bound = until.left().min(PATIENCE) + GRACE;
    let outcome = child::ask(&mut Command::new(program), question, bound).map_err(cannot)?;
    let Outcome::Ended(ended) = outcome else {
        return no("timeout: the key manager does not answer in time");
    };
    match serde_json::from_str::<Answer>(&ended.stdout) {
        Ok(answer) => answer.map_err(NoCredentials),
        Err(_) => no(format_args!("{PROGRAM} did not answer ({})", ended.status)),
    }
}

/// The other side: one question on standard input, and its answer.
pub(crate) fn answer() -> std::result::Result<Exit, Failure> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text).context("unable to read", "stdin")?;
    // What is not read is not quoted: it may be a token.
    let question: Question = serde_json::from_slice(&text)
        .map_err(|_| Failure::permanent("stdin is no question of dms-mount's".to_owned()))?;
    log::set_max_level(question.log_level.parse().unwrap_or(log::LevelFilter::Info));
    let _about = (!question.about.is_empty()).then(|| dms_cli::about(&question.about));
    let until = Deadline::from_seconds(question.until).unwrap_or(Deadline::after(PATIENCE));
    let key_manager = KeyManager::new(&question.openstack)?;
    let answer = match question.secret {
        None => key_manager.check(until),
        Some(Wanted { reference, token }) => {
            let payload = key_manager.fetch(&reference, token.map(Secret::new).as_ref(), until);
            // What is no text is no JSON object either: whoever reads it will say so.
            payload.map(|payload| Some(String::from_utf8(payload).unwrap_or_default()))
        }
    };
    let answer: Answer = answer.map_err(|why| why.0);
    let answer = serde_json::to_vec(&answer).map_err(std::io::Error::from);
    let mut stdout = std::io::stdout().lock();
    answer.and_then(|answer| stdout.write_all(&answer)).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}
