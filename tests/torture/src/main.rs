//! `torture`: tries to break the whole of dms on real parts, and says what it found.
//!
//! Nodes, in namespaces of their own; controllers and jobs that use them; faults of all kinds at
//! random. Everything that is asked, told, seen and done goes to a history, and what was promised is
//! held against it. The seed decides the order of jobs and faults; when exactly they meet, the
//! machine does.

mod ask;
mod check;
mod clock;
mod enter;
mod exports;
mod faults;
mod history;
mod hub;
mod init;
mod job;
mod keep;
mod node;
mod play;
mod report;
mod settle;
mod target;
mod watch;
mod witness;
mod world;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use faults::Fault;
use history::Event;
use play::Place;

/// Tries to break the whole of dms on real parts, and says what it found; as root
///
/// The binaries are those of `$DMS_BIN`, or, where that has none, those beside this program.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    word: Option<Word>,

    #[command(flatten)]
    options: Options,
}

/// How a run is to be.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// For how long there are faults; then all has to come to rest
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) seconds: f64,

    /// What decides the order of jobs and faults [default: the time of day]
    #[arg(long, value_name = "N", default_value_t = seed(), hide_default_value = true)]
    pub(crate) seed: u64,

    /// How many jobs at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) workers: u32,

    /// How many targets that are buckets
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) targets: u32,

    /// How many targets that are pools of ZFS, on each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) pools: u32,

    /// How many targets that are exports by NFS; the kernel has to have client and server
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) exports: u32,

    /// How long a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 12.0)]
    pub(crate) timeout: f64,

    /// How long there is nothing between two faults, on average
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub(crate) pause: f64,

    /// Only these faults [default: all]
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    faults: Option<Vec<Fault>>,

    /// Not these faults
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    without: Vec<Fault>,

    /// Keep the history here; if something was found, it is kept anyway
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Word {
    /// Check a history that was kept
    Check {
        /// The history
        file: PathBuf,
    },
    #[command(hide = true)]
    Enter(enter::Options),
    #[command(hide = true)]
    Init(init::Options),
    #[command(hide = true)]
    Keep(keep::Options),
    #[command(hide = true)]
    Witness(witness::Options),
}

impl Options {
    /// The faults of this run.
    pub(crate) fn chosen(&self) -> Vec<Fault> {
        let mut chosen = self.faults.clone().unwrap_or_else(|| Fault::value_variants().to_vec());
        chosen.retain(|fault| !self.without.contains(fault));
        chosen
    }

    /// Their names.
    pub(crate) fn words(&self) -> Vec<String> {
        self.chosen().into_iter().map(faults::word).collect()
    }
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs() % 1_000_000)
}

/// Where this program and what was built with it are.
pub(crate) fn built() -> PathBuf {
    let exe = std::env::current_exe().expect("/proc is there");
    exe.parent().expect("it is in a directory").to_owned()
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(why) => {
            let _ = why.print();
            return ExitCode::from(if why.use_stderr() { 100 } else { 0 });
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            let _ = writeln!(io::stderr().lock(), "torture: fatal: {why}");
            ExitCode::from(111)
        }
    }
}

/// The exit code: 1 if something was found.
fn run(cli: Cli) -> io::Result<u8> {
    let is_good = match cli.word {
        Some(Word::Enter(options)) => return enter::run(&options),
        Some(Word::Init(options)) => return init::run(&options).map(|()| 0),
        Some(Word::Keep(options)) => return keep::run(&options).map(|()| 0),
        Some(Word::Witness(options)) => return witness::run(&options).map(|()| 0),
        Some(Word::Check { file }) => verdict(&history::read(&file)?, None)?,
        None => torture(cli.options)?,
    };
    Ok(u8::from(!is_good))
}

fn torture(options: Options) -> io::Result<bool> {
    let place = Place::make()?;
    let seed = options.seed;
    let kept = options.history.clone();
    let default = std::env::temp_dir().join(format!("dms-torture-{seed}.jsonl"));
    let file = kept.clone().unwrap_or(default);
    say(&format!("seed {seed}, faults: {}\n", options.words().join(" ")))?;
    let events = play::play(options, &place, &file)?;
    let is_good = verdict(&events, Some(&place.words()))?;
    if is_good && kept.is_none() {
        std::fs::remove_file(&file)?;
    } else {
        say(&format!("seed {seed}, history in {}\n", file.display()))?;
    }
    Ok(is_good)
}

/// Says what is in a history, and whether nothing is wrong with it.
fn verdict(events: &[Event], words: Option<&Path>) -> io::Result<bool> {
    let found = check::check(events);
    say(&report::figures(events, &check::holds(events)))?;
    say(&report::violations(&found, events, words))?;
    say(&format!("{} violations\n", found.len()))?;
    Ok(found.is_empty())
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}
