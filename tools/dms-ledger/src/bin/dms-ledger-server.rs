//! What dms-ledger becomes where the ledger is on a server. Nobody calls it by this name.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_ledger::main_with_servers()
}
