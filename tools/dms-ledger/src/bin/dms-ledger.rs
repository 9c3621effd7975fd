//! dms-ledger: who is using what.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_ledger::main()
}
