//! dms-ledger: who is using what.
//!
//! `plan` decides what a request needs done, `commit` records what came of it, and the rest shows
//! it. It touches the database and nothing else: no mount, no key manager, no broker.

mod bindings;
mod cli;
mod commit;
mod compose;
mod decide;
mod journal;
mod ledger;
mod mysql;
mod owner;
mod place;
mod plan;
mod repeat;
mod schema;
mod serve;
mod sqlite;
mod store;
mod table;
mod takeover;
mod tidy;
mod view;
mod wish;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, Settings, random_id};
use dms_wire::{Action, write_line};

use crate::bindings::Binding;
use crate::cli::{CleanupArgs, Cli, Command, ListArgs, StatusArgs, Wanted};
use crate::compose::RequestArgs;
use crate::ledger::Ledger;
use crate::place::Place;
use crate::store::Store;
use crate::table::{Table, quiet_end};
use crate::tidy::Forgotten;

fn main() -> ExitCode {
    dms_cli::main("dms-ledger", run)
}

fn run() -> Result<Exit, Failure> {
    let cli: Cli = dms_cli::parse()?;
    let settings = Settings::from_env()?;
    let mut stdout = std::io::stdout();
    match cli.command {
        Command::Request { action: Wanted::Mount(args) } => {
            request(&args, Action::Mount, &settings)
        }
        Command::Request { action: Wanted::Unmount(args) } => {
            request(&args, Action::Unmount, &settings)
        }
        Command::Mount(args) => request_and_plan(&args, Action::Mount, &settings),
        Command::Unmount(args) => request_and_plan(&args, Action::Unmount, &settings),
        Command::Init { print: true } => init_statements(&settings),
        Command::Init { print: false } => {
            Ledger::init(&settings)?;
            Ledger::open_settled(&settings).map(|_| Exit::Done)
        }
        Command::Plan => serve::plan(&settings, stdout.lock()),
        Command::Commit => serve::commit(&settings, stdout.lock()),
        Command::Status(args) => {
            let mut ledger = Ledger::open_settled(&settings)?;
            let found = view::status(&mut *ledger.store, &args.filter());
            match found.context("unable to read", "the ledger")? {
                Some(table) => print(&table, args.json, &mut stdout),
                None => Err(Failure::new(Exit::No, args.not_found())),
            }
        }
        Command::List(args) => {
            let mut ledger = Ledger::open_settled(&settings)?;
            let table = list(&mut *ledger.store, &args);
            print(&table.context("unable to read", "the ledger")?, args.json, &mut stdout)
        }
        Command::History(args) => {
            let mut ledger = Ledger::open_settled(&settings)?;
            let table = view::history(&mut *ledger.store, &args.filter());
            print(&table.context("unable to read", "the ledger")?, args.json, &mut stdout)
        }
        Command::Forget(args) => forget(&settings, &args),
        Command::Release(args) => {
            let mut ledger = Ledger::open_settled(&settings)?;
            let released = tidy::release(&mut *ledger.store, &args.filter());
            let released = released.context("unable to write to", "the ledger")?;
            print(&view::bindings_table(released), args.json, &mut stdout)
        }
        Command::Cleanup(args) => cleanup(&settings, &args, &mut stdout),
        Command::Check => {
            Ledger::check(&settings)?;
            Ok(Exit::Done)
        }
    }
}

fn list(store: &mut dyn Store, args: &ListArgs) -> store::Result<Table> {
    let mut filter = args.filter();
    if let Some(age) = args.older_than {
        filter.before = Some(tidy::moment(store, age)?);
    }
    view::list(store, &filter)
}

fn forget(settings: &Settings, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut ledger = Ledger::open_settled(settings)?;
    let forgotten = tidy::forget(&mut *ledger.store, &args.filter());
    match forgotten.context("unable to write to", "the ledger")? {
        Forgotten::Done => Ok(Exit::Done),
        Forgotten::Nothing => Err(Failure::new(Exit::No, args.not_found())),
        Forgotten::InUse(Binding { job, target, host, .. }) => {
            let text = format!("job {job} uses target {target} on {host}: unmount it first");
            Err(Failure::new(Exit::No, text))
        }
    }
}

fn cleanup(
    settings: &Settings,
    args: &CleanupArgs,
    stdout: &mut impl Write,
) -> Result<Exit, Failure> {
    if args.hours.is_none() && args.journal_days.is_none() {
        return Err(dms_cli::refuse("cleanup needs --hours or --journal-days (see --help)"));
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
        print(&view::stale(&stale), args.json, stdout)?;
    }
    if let Some(days) = args.journal_days {
        let age = Duration::from_secs(u64::from(days) * 86_400);
        let removed = tidy::shorten_journal(store, age).context(failed, "the journal")?;
        log::info!("removed {removed} operations from the journal");
    }
    Ok(Exit::Done)
}

/// For a database that we may not change ourselves.
fn init_statements(settings: &Settings) -> Result<Exit, Failure> {
    let id = random_id().context("unable to read", "/proc/sys/kernel/random/uuid")?;
    let statements = Place::read(&settings.db_url)
        .map_err(|why| Failure::permanent(format!("DMS_DB_URL {why}")))
        .map(|place| schema::statements(place.dialect(), &id))?;
    let text: String = statements.iter().map(|statement| format!("{statement};\n\n")).collect();
    let mut stdout = std::io::stdout().lock();
    quiet_end(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
        .context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

fn token() -> Option<String> {
    std::env::var("KEYSTONE_TOKEN").ok()
}

fn request(args: &RequestArgs, action: Action, settings: &Settings) -> Result<Exit, Failure> {
    let (line, request) = args.compose(action, settings, token())?;
    if request.token.is_some() {
        serve::refuse_terminal("the request carries a token")?;
    }
    let written = write_line(&mut std::io::stdout().lock(), &line);
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}

fn request_and_plan(
    args: &RequestArgs,
    action: Action,
    settings: &Settings,
) -> Result<Exit, Failure> {
    let (_, request) = args.compose(action, settings, token())?;
    serve::plan_one(settings, &request, std::io::stdout().lock())
}

fn print(table: &Table, json: bool, output: &mut impl Write) -> Result<Exit, Failure> {
    let written = if json { table.write_json(output) } else { table.write_text(output) };
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}
