//! Ledgers on a server, for the program that has them; the other one becomes it.
//!
//! To load OpenSSL takes longer than all the rest of a start, and a ledger in a file needs none.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use dms_cli::Failure;

use crate::place::{Place, Server};
use crate::store::{Result, Store, StoreError};

/// Connects to a server; the time is its patience.
type Open = fn(&Server, Duration) -> Result<Box<dyn Store>>;

static OPEN: OnceLock<Open> = OnceLock::new();

/// The program that has them.
const PROGRAM: &str = "dms-ledger-server";

/// From now on this program has them.
pub(crate) fn offer(open: Open) {
    // Once only, by its main.
    let _ = OPEN.set(open);
}

/// Connects.
pub(crate) fn open(server: &Server, patience: Duration) -> Result<Box<dyn Store>> {
    let none = || StoreError::Unusable("this program has no ledgers on servers".into());
    OPEN.get().ok_or_else(none)?(server, patience)
}

/// Goes on as the other program, with the same arguments, if the ledger is on a server and this one
/// has none.
pub(crate) fn become_who_knows_them(db_url: &str) -> std::result::Result<(), Failure> {
    if OPEN.get().is_some() || !matches!(Place::read(db_url), Ok(Place::Mysql(_))) {
        return Ok(());
    }
    let failed = |why: io::Error| {
        Failure::permanent(format!("unable to start {PROGRAM}, for ledgers on servers: {why}"))
    };
    let mut command = Command::new(dms_cli::companion(PROGRAM).map_err(failed)?);
    let mut words = env::args_os();
    command.arg0(words.next().unwrap_or_else(|| "dms-ledger".into()));
    Err(failed(command.args(words).exec()))
}
