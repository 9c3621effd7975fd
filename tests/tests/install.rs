//! `make install` and `make uninstall`, and what a shell is given to complete command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use dms_tests::{Run, bin_dir, run};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// An image that things are installed into; it is gone when it is dropped.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Image {
        let root = std::env::temp_dir().join(format!("dms-image-{}-{name}", std::process::id()));
        std::fs::create_dir(&root).expect("a temporary directory");
        Image(root)
    }

    /// What `make VERB` runs.
    #[track_caller]
    fn make(&self, verb: &str) -> Run {
        let mut command = Command::new(Path::new(PROJECT).join("packaging/install"));
        command.arg(verb).env("BUILT", bin_dir()).env("PREFIX", "/opt/dms").env("DESTDIR", &self.0);
        run(&mut command, b"")
    }

    /// All that is in it, below its root.
    fn content(&self) -> String {
        let mut find = Command::new("find");
        let found = run(find.arg(&self.0).args(["-mindepth", "1", "-printf", "%P\n"]), b"");
        found.expect(0).stdout.clone()
    }

    fn text(&self, path: &str) -> String {
        let path = self.0.join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_installed_goes_again_and_the_operators_settings_stay() {
    let image = Image::new("all");
    image.make("install").expect(0);
    let content = image.content();
    for file in [
        "opt/dms/bin/dms-mount",
        "opt/dms/bin/dms-reconcile",
        "opt/dms/share/man/man8/dms-mount.8",
        "opt/dms/lib/systemd/system/dms-listen@.service",
        "etc/trilio-dms/server.conf",
    ] {
        assert!(content.lines().any(|line| line == file), "{file} is missing:\n{content}");
    }
    let unit = image.text("opt/dms/lib/systemd/system/dms-listen-act@.service");
    assert!(
        unit.contains("\nExecStart=/opt/dms/bin/dms-listen -- /opt/dms/bin/dms-mount\n"),
        "{unit}"
    );
    assert!(!unit.contains('@') || !unit.contains("@BINDIR@"), "a place is not filled in: {unit}");
    image.make("uninstall").expect(0);
    assert_eq!(image.content(), "");

    image.make("install").expect(0);
    let settings = image.0.join("etc/trilio-dms/server.conf");
    std::fs::write(&settings, "[server]\nnode_id = mine\n").expect("room for it");
    image.make("install").expect(0);
    image.make("uninstall").expect(0);
    assert_eq!(image.content(), "etc\netc/trilio-dms\netc/trilio-dms/server.conf\n");
    assert_eq!(image.text("etc/trilio-dms/server.conf"), "[server]\nnode_id = mine\n");
}

#[test]
fn shells_complete_the_command_lines() {
    let image = Image::new("shells");
    image.make("install").expect(0);
    for tool in ["dms-lock", "dms-ledger", "dms-mount", "dms-with", "dms-listen", "dms-call"] {
        let path = image.0.join("opt/dms/share/bash-completion/completions").join(tool);
        // As bash calls it, with the cursor behind `--pri`.
        let script = r#"source "$1"; COMP_WORDS=("$2" --pri); COMP_CWORD=1; words=$(complete -p "$2")
            function=${words##*-F }; "${function%% *}" "$2" --pri "$2"; printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["-ec", script, "bash"]).arg(&path).arg(tool);
        assert_eq!(run(&mut bash, b"").expect(0).stdout, "--print-config\n", "{tool}");
        for file in [
            format!("zsh/site-functions/_{tool}"),
            format!("fish/vendor_completions.d/{tool}.fish"),
        ] {
            let text = image.text(&format!("opt/dms/share/{file}"));
            assert!(text.contains(tool) && text.contains("print-config"), "{file}: {text}");
        }
    }
}

#[test]
fn the_binaries_run_where_the_readme_says() {
    // Debian 12 has glibc 2.36, Ubuntu 22.04 has 2.35.
    for tool in [
        "dms-lock",
        "dms-ledger",
        "dms-ledger-server",
        "dms-mount",
        "dms-mount-secret",
        "dms-listen",
        "dms-call",
    ] {
        let mut objdump = Command::new("objdump");
        let symbols = run(objdump.arg("-T").arg(bin_dir().join(tool)), b"");
        let newest = symbols.expect(0).stdout.split("GLIBC_2.").skip(1).filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        });
        let newest = newest.max().expect("it is linked to glibc");
        assert!(newest <= 35, "{tool} needs glibc 2.{newest}");
    }
}
