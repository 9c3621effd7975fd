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
mod owner;
mod plan;
mod repeat;
mod schema;
mod serve;
mod sqlite;
mod store;
mod table;
mod takeover;
mod view;
mod wish;

use std::io::Write;
use std::process::ExitCode;

use dms_cli::{Context, Exit, Failure, Settings};
use dms_wire::{Action, write_line};

use crate::cli::{Cli, Command, Wanted};
use crate::compose::RequestArgs;
use crate::ledger::Ledger;
use crate::table::{Table, quiet_end};

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
        Command::Init => Ledger::open_settled(&settings).map(|_| Exit::Done),
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
            let table = view::list(&mut *ledger.store, &args.filter());
            print(&table.context("unable to read", "the ledger")?, args.json, &mut stdout)
        }
        Command::History(args) => {
            let mut ledger = Ledger::open_settled(&settings)?;
            let table = view::history(&mut *ledger.store, &args.filter());
            print(&table.context("unable to read", "the ledger")?, args.json, &mut stdout)
        }
    }
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
