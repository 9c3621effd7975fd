//! `plan` and `commit` as line filters: for each line in, one line out, until the end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use dms_cli::{Context, Exit, Failure, Settings, random_id};
use dms_flock::life;
use dms_wire::{
    ErrorCode, Invalid, Line, Lines, LockTimeout, MAX_LINE, MAX_REQUEST, Plan, Request, Response,
    write_json,
};
use serde_json::{Map, Value};

use crate::commit;
use crate::ledger::{Ledger, Opened};
use crate::owner::{Owner, attempt};
use crate::plan::{Planned, Planner, withdraw};
use crate::store::StoreError;
use crate::wish::Wish;

/// For so long after it was done, operations of ended runs are settled only where they are in the
/// way: to look for them takes a round trip, and a look at the life lock of everybody who works.
const SETTLED: Duration = Duration::from_secs(1);

/// Request lines in, requests with plans out.
pub(crate) fn plan(settings: &Settings, mut output: impl Write) -> Result<Exit, Failure> {
    refuse_terminal("a plan is for the stage that acts")?;
    let mut ledger = Opened::new(settings, Ledger::open_settled)?;
    let mut exit = Exit::Done;
    let lines = Lines::on_stdin(MAX_REQUEST).and_then(Lines::while_read);
    let mut lines = lines.context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let request = match &line {
            Line::TooLong => Err(Response::too_long()),
            Line::Text(text) => {
                Request::parse(text).map_err(|why| match LockTimeout::parse(text) {
                    Some(timeout) => note_timeout(&mut ledger, settings, timeout),
                    None => Response::invalid(&why),
                })
            }
        };
        let planned = request.and_then(|request| {
            let ledger = ledger.get()?;
            let owner = ledger.owner.clone().beginning_requests();
            plan_request(ledger, owner, settings, &request)
        });
        if !hand_on(&mut ledger, &planned, &mut exit, &mut output)? {
            break;
        }
    }
    Ok(exit)
}

/// One request, as [`plan`] plans it.
pub(crate) fn plan_one(
    settings: &Settings,
    request: &Request,
    mut output: impl Write,
) -> Result<Exit, Failure> {
    refuse_terminal("a plan is for the stage that acts")?;
    let mut ledger = Opened::new(settings, Ledger::open_settled)?;
    let mut exit = Exit::Done;
    let planned = ledger.get().and_then(|ledger| {
        let owner = ledger.owner.clone();
        plan_request(ledger, owner, settings, request)
    });
    hand_on(&mut ledger, &planned, &mut exit, &mut output)?;
    Ok(exit)
}

/// The request's line for the act stage, or the answer to give at once.
type PlannedLine = Result<(Plan, Map<String, Value>), Response>;

impl Planner {
    fn new(ledger: &Ledger, owner: Owner, settings: &Settings) -> Planner {
        Planner {
            ledger: ledger.id.clone(),
            owner,
            mount_base: settings.mount_base().to_owned(),
            bound: settings.request_timeout,
            is_settled: ledger.settled.is_some_and(|settled| settled.elapsed() < SETTLED),
        }
    }

    fn wish<'a>(&self, request: &'a Request) -> Result<Wish<'a>, Response> {
        let new_id = random_id();
        let new_id = new_id.map_err(|why| internal(&format!("no id for the operation: {why}")))?;
        Wish::check(request, &self.mount_base, &new_id).map_err(|why| Response::invalid(&why))
    }
}

/// A request that dms-lock got no locks for: its caller has been told, and the journal says so, too.
/// Returns what the caller was told.
fn note_timeout(ledger: &mut Opened<'_>, settings: &Settings, timeout: LockTimeout) -> Response {
    let LockTimeout { answer, request, waited } = timeout;
    let noted = ledger.get().and_then(|ledger| {
        let planner = Planner::new(ledger, ledger.owner.clone(), settings);
        let wish = planner.wish(&request)?;
        let noted = planner.note_unlocked(&mut *ledger.store, &wish, &answer, waited);
        noted.map_err(|why| database(&why))
    });
    if let Err(Response { error_msg: Some(why), .. }) = noted {
        log::warn!("a lock that was waited for in vain is not in the journal: {why}");
    }
    answer
}

fn plan_request(
    ledger: &mut Ledger,
    owner: Owner,
    settings: &Settings,
    request: &Request,
) -> PlannedLine {
    let planner = Planner::new(ledger, owner, settings);
    if !planner.is_settled {
        ledger.settled = Some(Instant::now());
    }
    let wish = planner.wish(request)?;
    let _about = dms_cli::about(&request.about(Some(wish.id.as_str())));
    match planner.plan(&mut *ledger.store, &wish) {
        Ok(Planned::Plan(plan)) => {
            let line = request.with_plan(&plan);
            Ok((plan, line))
        }
        Ok(Planned::Answer(answer)) => Err(answer),
        Err(why) => Err(database(&why)),
    }
}

/// Writes what was planned. Should nobody take it, its operation is over. False: nobody does.
fn hand_on(
    ledger: &mut Opened<'_>,
    planned: &PlannedLine,
    exit: &mut Exit,
    output: &mut impl Write,
) -> Result<bool, Failure> {
    let written = match planned {
        Ok((_, line)) => write_json(output, line),
        Err(answer) => {
            if answer.is_error() {
                *exit = Exit::No;
            }
            write_json(output, answer)
        }
    };
    let Err(why) = written else { return Ok(true) };
    if let (Ok((plan, _)), Ok(ledger)) = (planned, ledger.get()) {
        withdraw(&mut *ledger.store, plan);
    }
    if why.kind() == ErrorKind::BrokenPipe {
        Ok(false)
    } else {
        Err(why).context("unable to write", "stdout")
    }
}

/// A request with a token is for a pipe, not for a screen and its scroll-back; and a plan that ends
/// on a screen reserves its target for nothing.
pub(crate) fn refuse_terminal(why: &str) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        let text = format!("stdout is a terminal, and {why}: pipe it into the next stage");
        return Err(Failure::permanent(text));
    }
    Ok(())
}

/// Response lines with plans in, responses out.
///
/// It settles nothing: the outcome that it is about to record is of a run that may have ended just
/// now (`dms-lock -- dms-ledger unmount ... | dms-mount | dms-ledger commit`). Nor does it end
/// before its input, should nobody read its answers: what was done has to be recorded.
pub(crate) fn commit(settings: &Settings, mut output: impl Write) -> Result<Exit, Failure> {
    let mut ledger = Opened::new(settings, Ledger::open)?;
    let mut exit = Exit::Done;
    let mut lines = Lines::on_stdin(MAX_LINE).context("unable to read", "stdin")?;
    while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
        let answer = match line {
            Line::TooLong => Response::too_long(),
            Line::Text(line) => commit_one(&mut ledger, &line),
        };
        if answer.is_error() {
            exit = Exit::No;
        }
        match write_json(&mut output, &answer) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => {}
            written => written.context("unable to write", "stdout")?,
        }
    }
    Ok(exit)
}

fn commit_one(ledger: &mut Opened<'_>, line: &[u8]) -> Response {
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
    let _about = dms_cli::about(&plan.about());
    if !plan.is_consistent() {
        return internal("the plan's action and decision disagree: nothing was recorded");
    }
    let committed = ledger.get().and_then(|ledger| {
        commit::commit(&mut *ledger.store, &plan, &outcome).map_err(|why| database(&why))
    });
    committed.unwrap_or_else(|answer| {
        // The operation stays pending, but nobody has to wait for it.
        if let Err(why) = give_up(&plan) {
            log::warn!("operation {} stays pending: {why}", plan.operation);
        }
        answer
    })
}

fn give_up(plan: &Plan) -> std::io::Result<()> {
    life::abandon(&attempt(plan.operation.as_str(), i64::try_from(plan.seq).ok()))
}

fn database(why: &StoreError) -> Response {
    Response::error(ErrorCode::Database, dms_cli::plain(&format!("the ledger failed: {why}")))
}

fn internal(text: &str) -> Response {
    Response::error(ErrorCode::Internal, text)
}
