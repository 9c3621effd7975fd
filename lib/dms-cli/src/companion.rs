//! Programs of ours that nobody calls by name: a tool becomes one, or starts one, when it needs what
//! that has and what would take long to load for all the rest.

use std::env;
use std::io;
use std::path::PathBuf;

/// Where they are: beside the tool, or where they are installed.
const PLACES: [&str; 2] = ["", "../libexec/dms"];

/// The program of this name.
///
/// # Errors
/// If it is in neither place, or if nobody can tell where this program is.
pub fn companion(name: &str) -> io::Result<PathBuf> {
    let ours = env::current_exe()?;
    let mut places = PLACES.iter().map(|place| ours.with_file_name(place).join(name));
    places.find(|program| program.exists()).ok_or_else(|| io::ErrorKind::NotFound.into())
}
