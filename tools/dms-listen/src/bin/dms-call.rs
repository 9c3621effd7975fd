//! dms-call: ask the listener of a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_cli::main("dms-call", dms_listen::call)
}
