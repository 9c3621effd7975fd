//! dms-mount: make it so.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_mount::main()
}
