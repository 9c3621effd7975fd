//! What dms-mount starts to ask a key manager. Nobody calls it by this name.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_mount::main_with_key_manager()
}
