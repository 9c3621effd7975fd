//! dms-lock: flock, nothing else.
//!
//! Either it takes its locks and becomes the command (the locks live as long as any process of
//! it), or it takes them anew for each request that it hands to a filter. It knows of a request
//! only which target it is for, and until when somebody waits for the answer.

mod clear;
mod cli;
mod descriptor;
mod dir;
mod each;
mod filter;
mod held;
mod list;
mod locks;
mod name;
mod replace;
mod turn;
mod who;

use std::process::ExitCode;

use dms_cli::{Config, Exit, Failure, Files, Settings};
use dms_flock::life;

use crate::cli::{Args, Form, Once};
use crate::dir::LockDir;
use crate::held::Held;
use crate::locks::Locks;

fn main() -> ExitCode {
    dms_cli::main("dms-lock", run)
}

fn run() -> Result<Exit, Failure> {
    let args: Option<Args> = dms_cli::parse()?;
    let config = Config::read(Files::Client)?;
    let settings = Settings::read(&config)?;
    let group = config.get("DMS_LOCK_GROUP")?.map(|group| group.text);
    let Some(args) = args else { return config.print() };
    let group = args.group.clone().or(group);
    let dir = LockDir::open(&settings.lock_dir, group.as_deref())?;
    let held = Held::parse(&std::env::var(held::VARIABLE).unwrap_or_default());
    match args.form(&settings)? {
        Form::Once(once) => run_once(&Locks { dir: &dir, held }, once),
        Form::Each(rules, command) => {
            let locks = Locks { dir: &dir, held };
            each::Each { locks, rules, command }.serve(std::io::stdout().lock())
        }
        Form::List { names, as_json } => {
            list::list(&dir, &names, as_json, std::io::stdout().lock())
        }
        Form::Clear => clear::clear(&dir),
    }
}

fn run_once(locks: &Locks<'_>, once: Once) -> Result<Exit, Failure> {
    // Before the locks: whatever is done under them, others wait for.
    let life = locks.dir.new_life()?;
    let wanted = once.names.into_iter().map(|name| (name, once.mode)).collect();
    let ended = match locks.take(wanted, once.wait) {
        Ok(Ok(taken)) if once.keeps => {
            replace::run(&life, locks.held.clone(), &once.command).inspect(|_| drop(taken))
        }
        Ok(Ok(taken)) => Err(replace::exec(&life, locks.held.clone(), &taken.locks, &once.command)),
        Ok(Err(refused)) => {
            let exit = if refused.is_for_ever() { Exit::Permanent } else { once.busy };
            Err(Failure::new(exit, refused.to_string()))
        }
        Err(why) => Err(why),
    };
    // No run: nobody is to find its file. What it has left behind may still need it.
    let path = life.path().to_owned();
    drop(life);
    if let Err(why) = life::bury(&path) {
        log::warn!("unable to remove {}: {why}", path.display());
    }
    ended
}
