//! dms-with: mount, run a command, unmount.
//!
//! It mounts and unmounts nothing itself: each request goes through a pipeline that is started for
//! it, and nothing of that is left while the command runs.

mod ask;
mod cli;
mod command;
mod end;
mod events;
mod holder;
mod patience;
mod pipeline;
mod requests;
mod screen;
mod settle;
mod wanted;
mod with;

use std::process::ExitCode;

use dms_cli::{Config, Context, Exit, Failure, Files, Settings, random_id};
use dms_flock::Access;
use dms_flock::life::{self, Life};

use crate::ask::Asker;
use crate::cli::Args;
use crate::events::Events;
use crate::pipeline::Pipeline;
use crate::with::With;

fn main() -> ExitCode {
    dms_cli::main("dms-with", run)
}

fn run() -> Result<Exit, Failure> {
    let args: Option<Args> = dms_cli::parse()?;
    let config = Config::read(Files::Client)?;
    let settings = Settings::read(&config)?;
    let pipeline = Pipeline::choose(&config, &settings);
    let Some(args) = args else { return config.print() };
    let token = std::env::var("KEYSTONE_TOKEN").ok().filter(|token| !token.is_empty());
    let (rules, wanted, command) = args.read(&settings, token)?;
    let id = random_id().context("unable to make", "a random id")?;
    let life = Life::begin(&settings.lock_dir, Access::of_directory(&settings.lock_dir), &id)
        .context("unable to make a life lock in", settings.lock_dir.display())?;
    let asker = Asker::new(pipeline?, &settings);
    let ended = With { rules, life: &life, asker, events: Events::start()? }.run(&wanted, &command);
    // What the command has left behind may hold it yet: then it stays, and says so.
    let path = life.path().to_owned();
    drop(life);
    if let Err(why) = life::bury(&path) {
        log::warn!("unable to remove {}: {why}", path.display());
    }
    ended?.exit()
}
