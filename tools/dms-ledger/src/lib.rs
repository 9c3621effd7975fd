//! dms-ledger: who is using what.
//!
//! `plan` decides what a request needs done, `commit` records what came of it, and the rest shows
//! it. It touches the database and nothing else: no mount, no key manager, no broker.
//!
//! It is two programs. One has the ledgers that are files, and starts in half the time of the other,
//! which has servers too and OpenSSL with them; where the ledger is on a server, it becomes that one.

mod audit;
mod bindings;
mod cli;
mod commands;
mod commit;
mod decide;
mod journal;
mod ledger;
mod metrics;
mod mysql;
mod owner;
mod place;
mod plan;
mod pools;
mod reconcile;
mod repeat;
mod schema;
mod serve;
mod servers;
mod sqlite;
mod store;
mod survey;
mod takeover;
mod tidy;
mod totals;
mod users;
mod view;
mod wish;

use std::process::ExitCode;

use dms_cli::{Config, Context, Exit, Failure, Files, Settings, quiet_end};
use dms_compose::RequestArgs;
use dms_wire::{Action, write_line};

use crate::cli::{Cli, Command, Wanted};
use crate::ledger::Ledger;

/// The main of `dms-ledger`.
#[must_use]
pub fn main() -> ExitCode {
    dms_cli::main("dms-ledger", run)
}

/// The main of what `dms-ledger` becomes where the ledger is on a server.
#[must_use]
pub fn main_with_servers() -> ExitCode {
    servers::offer(|server, patience| Ok(Box::new(mysql::Mysql::open(server, patience)?)));
    main()
}

fn run() -> Result<Exit, Failure> {
    let cli: Option<Cli> = dms_cli::parse()?;
    let config = Config::read(Files::Client)?;
    let settings = Settings::read(&config)?;
    let Some(cli) = cli else { return config.print() };
    if cli.command.opens_the_ledger() {
        servers::become_who_knows_them(&settings.db_url)?;
    }
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
        Command::Init { print: true } => commands::init_statements(&settings, &mut stdout),
        Command::Init { print: false } => {
            Ledger::init(&settings)?;
            Ledger::open_settled(&settings).map(|_| Exit::Done)
        }
        Command::Plan => serve::plan(&settings, stdout.lock()),
        Command::Commit => serve::commit(&settings, stdout.lock()),
        Command::Status(args) => commands::status(&settings, &args, &mut stdout),
        Command::List(args) => commands::list(&settings, &args, &mut stdout),
        Command::History(args) => commands::history(&settings, &args, &mut stdout),
        Command::Forget(args) => commands::forget(&settings, &args),
        Command::Release(args) => commands::release(&settings, &args, &mut stdout),
        Command::Cleanup(args) => commands::cleanup(&settings, &args, &mut stdout),
        Command::Audit(args) => commands::audit(&settings, &args, &mut stdout),
        Command::Reconcile(args) => commands::reconcile(&settings, &args, &mut stdout),
        Command::Metrics => commands::metrics(&settings, &mut stdout),
        Command::Check => {
            Ledger::check(&settings)?;
            Ok(Exit::Done)
        }
    }
}

fn token() -> Option<String> {
    std::env::var("KEYSTONE_TOKEN").ok().filter(|token| !token.is_empty())
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
