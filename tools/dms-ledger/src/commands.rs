//! The commands for people and scripts: open the ledger, ask or change it, print what came of it.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, Look, Settings, Table, quiet_end, random_id, refuse};
use dms_wire::{Host, Secret, write_json};

use crate::bindings::Binding;
use crate::cli::{
    AuditArgs, CleanupArgs, HistoryArgs, ListArgs, OutputArgs, ReconcileArgs, ReleaseArgs,
    StatusArgs,
};
use crate::ledger::Ledger;
use crate::place::Place;
use crate::reconcile::Finding;
use crate::survey::Survey;
use crate::tidy::Forgotten;
use crate::{audit, metrics, reconcile, schema, serve, tidy, view};

const READ: (&str, &str) = ("unable to read", "the ledger");
const WRITE: (&str, &str) = ("unable to write to", "the ledger");

type Done = Result<Exit, Failure>;

pub(crate) fn status(settings: &Settings, args: &StatusArgs, stdout: &mut impl Write) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let found = view::status(&mut *ledger.store, &args.filter());
    match found.context(READ.0, READ.1)? {
        Some(table) => print(&table, args.output, stdout),
        None => Err(Failure::new(Exit::No, args.not_found())),
    }
}

pub(crate) fn list(settings: &Settings, args: &ListArgs, stdout: &mut impl Write) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let mut filter = args.filter();
    if let Some(age) = args.older_than {
        let before = tidy::moment(&mut *ledger.store, age);
        filter.before = Some(before.context(READ.0, READ.1)?);
    }
    let table = view::list(&mut *ledger.store, &filter).context(READ.0, READ.1)?;
    print(&table, args.output, stdout)
}

pub(crate) fn history(settings: &Settings, args: &HistoryArgs, stdout: &mut impl Write) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let table = view::history(&mut *ledger.store, &args.filter()).context(READ.0, READ.1)?;
    print(&table, args.output, stdout)
}

pub(crate) fn release(settings: &Settings, args: &ReleaseArgs, stdout: &mut impl Write) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let store = &mut *ledger.store;
    if args.dead {
        let buried = tidy::bury(store, &args.filter(), &args.host);
        let buried = buried.context(WRITE.0, WRITE.1)?;
        return print(&view::bindings_table(buried), args.output, stdout);
    }
    let released = tidy::release(store, &args.filter()).context(WRITE.0, WRITE.1)?;
    print(&view::bindings_table(released.found), args.output, stdout)?;
    for Binding { job, target, host, source, .. } in &released.kept {
        let pool = source.as_deref().unwrap_or(target);
        log::error!(
            "job {job} is left: {host} may write to pool {pool} for as long as it lives (--dead: \
             it does not)"
        );
    }
    Ok(if released.kept.is_empty() { Exit::Done } else { Exit::No })
}

/// The rows, and what is mounted on a node, if its list is on stdin.
pub(crate) fn audit(settings: &Settings, args: &AuditArgs, stdout: &mut impl Write) -> Done {
    let host = args.host.as_deref().map(host).transpose()?;
    let has_list = !args.rows_only && !std::io::stdin().is_terminal();
    let survey = match has_list {
        true => Some(Survey::read(host.clone().map_or_else(|| node(settings), Ok)?, settings)?),
        false => None,
    };
    let mut ledger = Ledger::open_settled(settings)?;
    let store = &mut *ledger.store;
    let mut findings = audit::rows(store, host.as_ref()).context(READ.0, READ.1)?;
    if let Some(survey) = &survey {
        findings.extend(audit::mounts(store, survey).context(READ.0, READ.1)?);
    }
    let exit = if findings.is_empty() { Exit::Done } else { Exit::No };
    if exit == Exit::No || args.output.json {
        print(&audit::table(findings), args.output, stdout)?;
    }
    Ok(exit)
}

/// Requests for the pipeline. What a reboot has ended is released here.
pub(crate) fn reconcile(
    settings: &Settings,
    args: &ReconcileArgs,
    stdout: &mut impl Write,
) -> Done {
    if std::io::stdin().is_terminal() {
        return Err(refuse("stdin is a terminal: reconcile reads what `dms-mount list` says"));
    }
    let token = crate::token().map(Secret::new);
    if token.is_some() {
        serve::refuse_terminal("the requests carry a token")?;
    }
    let host = args.host.as_deref().map_or_else(|| node(settings), host)?;
    let survey = Survey::read(host, settings)?;
    let mut ledger = Ledger::open_settled(settings)?;
    let store = &mut *ledger.store;
    let ended = reconcile::end_earlier_boots(store, &survey).context(WRITE.0, WRITE.1)?;
    for binding in &ended {
        log::warn!("{}", binding.is_over(&format!("{} was booted since", binding.host)));
    }
    let ended = reconcile::end_unkept(store, &survey, &ledger.owner).context(WRITE.0, WRITE.1)?;
    for binding in &ended {
        log::warn!("{}", binding.unkept());
    }
    let findings = reconcile::compare(store, &survey, &ledger.owner, args.take_unknown);
    let mut exit = Exit::Done;
    for finding in findings.context(READ.0, READ.1)? {
        match finding {
            Finding::Left(text) => {
                log::warn!("{}", dms_cli::plain(&text));
                exit = Exit::No;
            }
            Finding::Request(mut request) => {
                if let Some(token) = &token {
                    request.insert("keystone_token".into(), token.reveal().into());
                }
                quiet_end(write_json(stdout, &request)).context("unable to write", "stdout")?;
            }
        }
    }
    Ok(exit)
}

pub(crate) fn metrics(settings: &Settings, stdout: &mut impl Write) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let id = ledger.id.clone();
    let text = metrics::text(&mut *ledger.store, &id).context(READ.0, READ.1)?;
    write_text(&text, stdout)
}

/// The node that is meant if none is named.
fn node(settings: &Settings) -> Result<Host, Failure> {
    host(&settings.node_id)
}

fn host(name: &str) -> Result<Host, Failure> {
    Host::try_from(name.to_owned()).map_err(|why| refuse(&format!("--host: {why}")))
}

fn write_text(text: &str, stdout: &mut impl Write) -> Done {
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

pub(crate) fn forget(settings: &Settings, args: &StatusArgs) -> Done {
    let mut ledger = Ledger::open_settled(settings)?;
    let forgotten = tidy::forget(&mut *ledger.store, &args.filter());
    match forgotten.context(WRITE.0, WRITE.1)? {
        Forgotten::Done => Ok(Exit::Done),
        Forgotten::Nothing => Err(Failure::new(Exit::No, args.not_found())),
        Forgotten::InUse(Binding { job, target, host, .. }) => {
            let text = format!("job {job} uses target {target} on {host}: unmount it first");
            Err(Failure::new(Exit::No, text))
        }
    }
}

pub(crate) fn cleanup(settings: &Settings, args: &CleanupArgs, stdout: &mut impl Write) -> Done {
    if args.hours.is_none() && args.journal_days.is_none() {
        return Err(refuse("cleanup needs --hours or --journal-days (see --help)"));
    }
    let mut ledger = Ledger::open_settled(settings)?;
    let store = &mut *ledger.store;
    let failed = "unable to clean up";
    if let Some(hours) = args.hours {
        let age = Duration::from_secs(u64::from(hours) * 3600);
        let stale = tidy::find_stale(store, &ledger.owner, age).context(failed, "the ledger")?;
        if !args.dry_run {
            tidy::clean(store, &stale).context(failed, "the ledger")?;
        }
        print(&view::stale(&stale), args.output, stdout)?;
    }
    if let Some(days) = args.journal_days {
        let age = Duration::from_secs(u64::from(days) * 86_400);
        let removed = tidy::shorten_journal(store, age).context(failed, "the journal")?;
        log::info!("removed {removed} operations from the journal");
    }
    Ok(Exit::Done)
}

/// For a database that we may not change ourselves.
pub(crate) fn init_statements(settings: &Settings, stdout: &mut impl Write) -> Done {
    let id = random_id().context("unable to make", "a random id")?;
    let statements = Place::read(&settings.db_url)
        .map_err(|why| Failure::permanent(format!("DMS_DB_URL {why}")))
        .map(|place| schema::statements(place.dialect(), &id))?;
    let text: String = statements.iter().map(|statement| format!("{statement};\n\n")).collect();
    write_text(&text, stdout)
}

fn print(table: &Table, args: OutputArgs, output: &mut impl Write) -> Result<Exit, Failure> {
    let written = match args.json {
        true => table.write_json(output),
        false => table.write_text(output, Look::of_stdout(args.wide)),
    };
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}
