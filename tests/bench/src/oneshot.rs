//! Commands that are started, do one thing and end.

use std::process::{Command, Stdio};

use dms_tests::{Database, Lab, bin_dir};

use crate::memory;
use crate::sample::{in_turns, timed};
use crate::stage::{database, mount_targets, node, request, succeed};
use crate::table::{Limit, Table};

const ROUNDS: usize = 200;

/// What `dms-ledger list` asks.
const LIST: &str = "SELECT jobid, backup_target_id, host, mounted, deleted, mount_path, type, \
                    source, boot, created_at, updated_at, owner, access \
                    FROM backup_target_mount_ledger \
                    WHERE mounted = 1 AND COALESCE(deleted, 0) = 0 ORDER BY id";

/// To its end, without its output.
fn ended(command: &mut Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    timed(|| assert!(command.status().is_ok_and(|end| end.success()), "{command:?}"))
}

pub(crate) fn measure(table: &mut Table) {
    let database = database();
    for lab in [node(None), node(Some(&database))] {
        let engine = if lab.is_on_server() { "MariaDB" } else { "SQLite" };
        mount_targets(&lab, 4);
        list(table, engine, &lab, &database);
        pipeline(table, engine, &lab);
    }
    for tool in ["dms-lock", "dms-ledger", "dms-mount", "dms-listen"] {
        let [ours, theirs] = in_turns(
            ROUNDS,
            &mut [&mut || ended(Command::new(bin_dir().join(tool)).arg("--version")), &mut || {
                ended(&mut Command::new("/bin/true"))
            }],
        );
        table.ratio(&format!("{tool} --version"), &ours, ("true", &theirs), Limit::None);
    }
}

fn list(table: &mut Table, engine: &str, lab: &Lab, database: &Database) {
    let mut ours = lab.command("dms-ledger", &["list"]);
    let mut theirs = if lab.is_on_server() {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--batch", "--protocol=tcp", "--host=127.0.0.1"]);
        client.arg(format!("--port={}", database.port())).arg(format!("--user={}", Database::USER));
        client.arg(format!("--password={}", Database::PASSWORD));
        client.args(["--database", lab.sql("SELECT DATABASE();").trim(), "--execute", LIST]);
        client
    } else {
        let mut client = Command::new("sqlite3");
        client.arg(lab.path("state/ledger.db")).arg(LIST);
        client
    };
    let memory = memory::largest(&ours);
    let [mine, other] =
        in_turns(ROUNDS, &mut [&mut || ended(&mut ours), &mut || ended(&mut theirs)]);
    let against = if lab.is_on_server() { "mariadb -e" } else { "sqlite3" };
    let what = format!("dms-ledger list, {engine}");
    table.ratio(&what, &mine, (against, &other), Limit::AtMost(1.5));
    table.figure("  its largest size", memory, "MiB", Limit::AtMost(12.0));
}

fn pipeline(table: &mut Table, engine: &str, lab: &Lab) {
    let send = |action: &str| {
        let request = request(lab, action, 2, "target-0");
        timed(|| succeed(&lab.send(&request)))
    };
    let mut unmount = Vec::new();
    let [mount] = in_turns(
        ROUNDS,
        &mut [&mut || {
            let time = send("mount");
            unmount.push(send("unmount"));
            time
        }],
    );
    let what = format!("a pipeline started for one mount, target mounted, {engine}");
    table.figure(&what, mount.median(), "ms", Limit::AtMost(15.0));
    table.figure("  p99", mount.part(99.0), "ms", Limit::None);
    let unmount: crate::sample::Sample = unmount.into_iter().collect();
    table.figure("  the same, unmount", unmount.median(), "ms", Limit::AtMost(15.0));
}
