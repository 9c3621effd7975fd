//! Links the unwinder into each program.
//!
//! It is needed for nothing but a panic, and as a shared library (libgcc_s) it costs each start of
//! the program a fifth of a millisecond: to map it, and to have it ask a virtual processor what it
//! can do. Where there is no such archive, the shared library it is.

use std::path::Path;
use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_native = variable("TARGET") == variable("HOST");
    if variable("CARGO_CFG_TARGET_ENV") == "gnu" && is_native {
        let found = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
        let path = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        // Without an archive, the compiler says its bare name.
        let dir = path.as_deref().ok().and_then(|path| Path::new(path).parent());
        if let Some(dir) = dir.filter(|dir| dir.is_absolute()) {
            let mut lines = std::io::stdout().lock();
            let text = format!(
                "cargo:rustc-link-search=native={}\n\
                 cargo:rustc-link-lib=static:+whole-archive=gcc_eh\n",
                dir.display()
            );
            // Whole: it has to be there before the standard library asks for the shared one.
            let _ = std::io::Write::write_all(&mut lines, text.as_bytes());
        }
    }
}
