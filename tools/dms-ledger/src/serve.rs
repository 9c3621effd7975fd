//! `plan` and `commit` as line filters: for each line in, one line out, until the end.

use std::io::{ErrorKind, IsTerminal, Write};

use dms_cli::{Context, Exit, Failure, random_id};
use dms_wire::{
    Action, Decision, ErrorCode, Invalid, Line, Lines, MAX_LINE, MAX_REQUEST, Request, Response,
    write_json, write_line,
};

use crate::commit;
use crate::plan::{Planned, Planner};
use crate::store::{Store, StoreError};
use crate::wish::Wish;

/// Request lines in, requests with plans out.
pub(crate) fn plan(
    store: &mut dyn Store,
    planner: &Planner,
    mut output: impl Write,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut lines = Lines::on_stdin(MAX_REQUEST).context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let request = match &line {
            Line::TooLong => Err(Response::too_long()),
            Line::Text(text) => Request::parse(text).map_err(|why| Response::invalid(&why)),
        };
        let planned = match request {
            Ok(request) => {
                refuse_terminal(&request)?;
                plan_one(store, planner, &request)
            }
            Err(answer) => Err(answer),
        };
        let written = match planned {
            Ok(request) => write_json(&mut output, &request),
            Err(answer) => {
                if answer.is_error() {
                    exit = Exit::No;
                }
                write_json(&mut output, &answer)
            }
        };
        match written {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => break,
            written => written.context("unable to write", "stdout")?,
        }
    }
    Ok(exit)
}

/// One request: the line for the act stage, or the answer to give at once.
pub(crate) fn plan_one(
    store: &mut dyn Store,
    planner: &Planner,
    request: &Request,
) -> Result<serde_json::Map<String, serde_json::Value>, Response> {
    let new_id = random_id().map_err(|why| internal(&format!("no id for the operation: {why}")))?;
    let wish = Wish::check(request, &planner.mount_base, &new_id)
        .map_err(|why| Response::invalid(&why))?;
    match planner.plan(store, &wish) {
        Ok(Planned::Plan(plan)) => Ok(request.with_plan(&plan)),
        Ok(Planned::Answer(answer)) => Err(answer),
        Err(why) => Err(database(&why)),
    }
}

/// A request with a token is for a pipe, not for a screen and its scroll-back.
pub(crate) fn refuse_terminal(request: &Request) -> Result<(), Failure> {
    if request.token.is_some() && std::io::stdout().is_terminal() {
        return Err(Failure::permanent(
            "stdout is a terminal, and the request carries a token: pipe it into the next stage",
        ));
    }
    Ok(())
}

/// Response lines with plans in, responses out.
pub(crate) fn commit(store: &mut dyn Store, mut output: impl Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut lines = Lines::on_stdin(MAX_LINE).context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let answer = match line {
            Line::TooLong => Response::too_long(),
            Line::Text(line) => commit_one(store, &line),
        };
        if answer.is_error() {
            exit = Exit::No;
        }
        let text = serde_json::to_vec(&answer).expect("a response is plain data");
        match write_line(&mut output, &text) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => break,
            written => written.context("unable to write", "stdout")?,
        }
    }
    Ok(exit)
}

fn commit_one(store: &mut dyn Store, line: &[u8]) -> Response {
    let outcome = match Response::parse(line) {
        Ok(outcome) => outcome,
        Err(Invalid(why)) => return internal(&format!("the act stage did not answer: {why}")),
    };
    let Some(plan) = outcome.plan.clone() else {
        if outcome.is_error() {
            return outcome;
        }
        return internal("the act stage lost the plan: nothing was recorded");
    };
    let agrees = match plan.decision {
        Decision::Mount => plan.action == Action::Mount,
        Decision::Unmount | Decision::Release => plan.action == Action::Unmount,
    };
    if !agrees {
        return internal("the plan's action and decision disagree: nothing was recorded");
    }
    commit::commit(store, &plan, &outcome).unwrap_or_else(|why| database(&why))
}

fn database(why: &StoreError) -> Response {
    Response::error(ErrorCode::Database, dms_cli::plain(&format!("the ledger failed: {why}")))
}

fn internal(text: &str) -> Response {
    Response::error(ErrorCode::Internal, text)
}
