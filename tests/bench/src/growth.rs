//! What a request costs where there is much: bindings of its target, mounts on the node, rows in the
//! ledger.

use std::process::Command;
use std::sync::Arc;

use dms_tests::{Database, Filter, Lab, fill};

use crate::sample::{Sample, in_turns, timed};
use crate::stage::{database, node, request, succeed};
use crate::table::{Limit, Table};

const ROUNDS: usize = 150;
const LIMIT: Limit = Limit::AtMost(1.3);

/// Few and many.
const BINDINGS: [u32; 2] = [10, 10_000];
const MOUNTS: [u32; 2] = [1, 500];
const ROWS: [u32; 2] = [1_000, 1_000_000];

const TARGET: &str = "growing";

pub(crate) fn measure(table: &mut Table) {
    let server = database();
    for engine in ["SQLite", "MariaDB"] {
        let pair = || [(); 2].map(|()| lab(engine, &server));
        let what = format!("{} for {} active bindings of the target", BINDINGS[1], BINDINGS[0]);
        compare(table, engine, &what, &pair(), |lab, which| bind(lab, BINDINGS[which]));
        let what = format!("{} for {} rows in the ledger", ROWS[1], ROWS[0]);
        compare(table, engine, &what, &pair(), |lab, which| fill(lab, ROWS[which]));
    }
    mounts(table);
}

fn lab(engine: &str, server: &Arc<Database>) -> Lab {
    node((engine != "SQLite").then_some(server))
}

/// The target is mounted, and one more job comes and goes.
fn compare(
    table: &mut Table,
    engine: &str,
    what: &str,
    labs: &[Lab; 2],
    prepare: impl Fn(&Lab, usize),
) {
    for (which, lab) in labs.iter().enumerate() {
        prepare(lab, which);
    }
    let pipelines = [0, 1].map(|which| Filter::start(&mut labs[which].pipeline_command()));
    tell(table, &format!("{engine}: {what}"), pipelines, [&labs[0], &labs[1]]);
}

fn tell(table: &mut Table, what: &str, pipelines: [Filter; 2], labs: [&Lab; 2]) {
    let [mut few, mut many] = pipelines;
    let mut unmounts = [Vec::new(), Vec::new()];
    succeed(&few.ask(&request(labs[0], "mount", 1, TARGET)));
    succeed(&many.ask(&request(labs[1], "mount", 1, TARGET)));
    let once = |lab: &Lab, pipeline: &mut Filter, unmounts: &mut Vec<f64>| {
        let mount = request(lab, "mount", 2, TARGET);
        let time = timed(|| succeed(&pipeline.ask(&mount)));
        let unmount = request(lab, "unmount", 2, TARGET);
        unmounts.push(timed(|| succeed(&pipeline.ask(&unmount))));
        time
    };
    let [few_ends, many_ends] = &mut unmounts;
    let [theirs, ours] = in_turns(
        ROUNDS,
        &mut [&mut || once(labs[0], &mut few, few_ends), &mut || {
            once(labs[1], &mut many, many_ends)
        }],
    );
    few.end();
    many.end();
    let [theirs_ends, ours_ends] = unmounts.map(|times| times.into_iter().collect::<Sample>());
    table.ratio(&format!("mount, {what}"), &ours, ("few", &theirs), LIMIT);
    table.ratio(&format!("unmount, {what}"), &ours_ends, ("few", &theirs_ends), LIMIT);
}

/// Jobs that use the target, as the pipeline would have written them down.
fn bind(lab: &Lab, count: u32) {
    lab.feed("dms-ledger", &["init"], "").expect(0);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is there");
    let secret = request(lab, "mount", 1, TARGET);
    let source = secret["backup_target"]["secret_ref"].as_str().unwrap_or_default();
    let numbers = match lab.is_on_server() {
        true => format!("(SELECT seq AS n FROM seq_1_to_{count}) AS s"),
        false => format!(
            "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) \
             SELECT n FROM s)"
        ),
    };
    let (now, path) = (lab.ago(0), lab.mount_point(TARGET));
    lab.sql(&format!(
        "INSERT INTO backup_target_mount_ledger (created_at, updated_at, deleted, jobid, \
         backup_target_id, host, mounted, mount_path, type, source, boot) \
         SELECT {now}, {now}, 0, 1000 + n, '{TARGET}', '{}', 1, '{}', 's3', '{source}', '{}' \
         FROM {numbers};",
        lab.node,
        path.display(),
        boot.trim()
    ));
    if lab.is_on_server() {
        lab.sql("ANALYZE TABLE backup_target_mount_ledger;");
    }
}

/// The mounts are made in a namespace of the pipeline's own: nobody else sees them.
fn mounts(table: &mut Table) {
    let labs = [0, 1].map(|_| node(None));
    let pipelines = [0, 1].map(|which| {
        let lab: &Lab = &labs[which];
        let dir = lab.path("many");
        // Of others' mounts it must not have copies: their daemons would not end while it runs.
        let script = format!(
            "awk '$3 ~ /^fuse/ {{ print $2 }}' /proc/mounts | xargs -r umount -l --; mkdir -p {0}; for n in $(seq {1}); do mkdir {0}/$n && mount -t tmpfs none {0}/$n; \
             done; exec dms-pipeline",
            dir.display(),
            MOUNTS[which]
        );
        let args = ["--mount", "--propagation", "private", "sh", "-c", &script];
        let mut command: Command = lab.command("unshare", &args);
        Filter::start(&mut command)
    });
    let what = format!("{} for {} mounts on the node", MOUNTS[1], MOUNTS[0]);
    tell(table, &what, pipelines, [&labs[0], &labs[1]]);
}
