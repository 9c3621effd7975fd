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

use dms_cli::{Context, Exit, Failure, Settings, random_id};
use dms_wire::{Action, write_json, write_line};

use crate::cli::{Cli, Command, Wanted};
use crate::compose::RequestArgs;
use crate::owner::Owner;
use crate::plan::Planner;
use crate::store::Store;
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
        Command::Plan => {
            let mut ledger = Ledger::open_settled(&settings)?;
            ledger.owner = ledger.owner.beginning_requests();
            let planner = ledger.planner(&settings);
            serve::plan(&mut *ledger.store, &planner, stdout.lock())
        }
        Command::Commit => {
            // It settles nothing: the outcome that it is about to record is of a run that may have
            // ended just now (`dms-lock -- dms-ledger unmount ... | dms-mount | dms-ledger commit`).
            let mut ledger = Ledger::open(&settings)?;
            serve::commit(&mut *ledger.store, stdout.lock())
        }
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

/// The open ledger.
struct Ledger {
    store: Box<dyn Store>,
    id: String,
    owner: Owner,
}

impl Ledger {
    fn open(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) = sqlite::path_of(&settings.db_url) else {
            // The URL may hold a password: only its scheme is told.
            let scheme = settings.db_url.split(':').next().unwrap_or_default();
            return Err(Failure::permanent(format!(
                "DMS_DB_URL: no ledger engine for {scheme:?}; there is sqlite:///PATH"
            )));
        };
        let what = "unable to open ledger";
        let mut store = sqlite::Sqlite::open(&path).context(what, path.display())?;
        let new_id = random_id().context("unable to read", "/proc/sys/kernel/random/uuid")?;
        let id = schema::open(&mut store, &new_id).context(what, path.display())?;
        Ok(Ledger { store: Box::new(store), id, owner: Owner::ourselves()? })
    }

    /// The ledger, with the operations of ended runs settled.
    fn open_settled(settings: &Settings) -> Result<Self, Failure> {
        let mut ledger = Ledger::open(settings)?;
        takeover::settle_ended(&mut *ledger.store, &ledger.owner)
            .context("unable to settle", "the ledger")?;
        Ok(ledger)
    }

    fn planner(&self, settings: &Settings) -> Planner {
        Planner {
            ledger: self.id.clone(),
            owner: self.owner.clone(),
            mount_base: settings.mount_base().to_owned(),
            bound: settings.request_timeout,
        }
    }
}

fn token() -> Option<String> {
    std::env::var("KEYSTONE_TOKEN").ok()
}

fn request(args: &RequestArgs, action: Action, settings: &Settings) -> Result<Exit, Failure> {
    let (line, request) = args.compose(action, settings, token())?;
    serve::refuse_terminal(&request)?;
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
    serve::refuse_terminal(&request)?;
    let mut ledger = Ledger::open_settled(settings)?;
    let planner = ledger.planner(settings);
    let mut stdout = std::io::stdout().lock();
    let (written, exit) = match serve::plan_one(&mut *ledger.store, &planner, &request) {
        Ok(planned) => (write_json(&mut stdout, &planned), Exit::Done),
        Err(answer) => {
            let exit = if answer.is_error() { Exit::No } else { Exit::Done };
            (write_json(&mut stdout, &answer), exit)
        }
    };
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(exit)
}

fn print(table: &Table, json: bool, output: &mut impl Write) -> Result<Exit, Failure> {
    let written = if json { table.write_json(output) } else { table.write_text(output) };
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}
