//! What an operator sees on a terminal of 100 columns. `make screens` writes it to docs/screens.md.

use std::fs;
use std::path::Path;

use dms_tests::{Lab, eventually, run};
use nix::sys::signal::Signal;

/// What is shown, and what the reader is told of it.
const SCREENS: [(&str, &str); 8] = [
    ("dms-ledger list", "Who uses what."),
    ("dms-ledger status --job-id 12345 --target-id target-123", "One job and one target."),
    ("dms-ledger history --limit 8", "What was done, the newest first."),
    ("dms-mount ps", "The daemons. That of `archive` was killed a moment ago."),
    ("dms-mount ps --detailed target-123", "One of them, in full."),
    ("dms-mount list | dms-ledger audit", "What ledger and node disagree in."),
    ("dms-ledger check && echo it can", "Can the ledger be used?"),
    ("dms-mount check", "Is all there that mounting needs?"),
];

const WIDTH: usize = 100;

/// A node on which something has happened.
fn node() -> Lab {
    let lab = Lab::on_sqlite();
    for (job, target) in [(12345, "target-123"), (12346, "target-123"), (12347, "archive")] {
        lab.mount(job, target);
    }
    lab.send(&lab.request("unmount", 99, "archive"));
    lab.unmount(12346, "target-123");
    lab.mount(12350, "nightly");
    lab.unmount(12350, "nightly");
    let ago = lab.ago(11_540);
    lab.sql(&format!(
        "UPDATE backup_target_mount_ledger SET created_at = {ago} WHERE jobid = 12345"
    ));
    lab.daemons("archive")[0].signal(Signal::SIGKILL);
    eventually("it ends", || lab.daemons("archive").is_empty());
    lab
}

/// What a terminal gets, without what moves its cursor or colours it.
fn captured(lab: &Lab, command: &str) -> String {
    let script = format!("stty cols {WIDTH} rows 40; {command}");
    // The exit code is the command's own business: audit finds something.
    let mut terminal = lab.command("script", &["-qec", &script, "/dev/null"]);
    let said = run(terminal.current_dir(lab.path("")).env("DMS_LOG_LEVEL", "WARNING"), b"").stdout;
    let mut text = String::new();
    let mut rest = said.as_str();
    while let Some((before, behind)) = rest.split_once('\x1b') {
        text.push_str(before);
        rest = behind.split_once('m').map_or("", |(_, behind)| behind);
    }
    text.push_str(rest);
    text.replace('\r', "")
}

#[test]
fn every_screen_is_a_table_that_a_terminal_of_100_columns_does_not_break() {
    let lab = node();
    let mut page = "# Screens\n\nWhat an operator sees on a terminal of 100 columns. Made by \
                    `make screens`, which runs the commands.\n"
        .to_owned();
    for (command, about) in SCREENS {
        let screen = captured(&lab, command);
        assert!(screen.lines().count() > 0, "{command} shows nothing");
        for line in screen.lines() {
            assert!(line.chars().count() <= WIDTH, "{command} is too wide: {line:?}");
        }
        page.push_str(&format!("\n{about}\n\n```console\n$ {command}\n{screen}```\n"));
    }
    assert!(page.contains("3h12m") && page.contains("TARGET"), "{page}");
    if std::env::var_os("DMS_WRITE_SCREENS").is_some() {
        let root = lab.path("").display().to_string();
        let page = page.replace(root.trim_end_matches('/'), "/var/lib/node");
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        fs::create_dir_all(&docs).expect("room for it");
        fs::write(docs.join("screens.md"), page).expect("room for it");
    }
}

#[test]
fn colour_is_for_terminals_whose_user_has_nothing_against_it() {
    let lab = node();
    let raw = |variables: &str| {
        let script = format!("stty cols {WIDTH}; {variables} dms-mount ps");
        run(&mut lab.command("script", &["-qec", &script, "/dev/null"]), b"").stdout
    };
    assert!(raw("").contains("\x1b[31mno"), "a dead daemon stands out");
    assert!(!raw("NO_COLOR=1").contains('\x1b'));
    assert!(!lab.feed("dms-mount", &["ps"], "").stdout.contains('\x1b'));
}
