//! `ps`: the daemons of our mounts, and how they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use dms_cli::{Column, Context, Exit, Failure, Look, Table, age, quiet_end};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::cli::PsArgs;
use crate::mountinfo::Mount;
use crate::node::Node;
use crate::probe::{self, Depth, Health};
use crate::scan;
use crate::serve::stop;
use crate::tracked::{Tracked, look};

/// Between two looks, in milliseconds.
const WATCH: u16 = 2000;

const COLUMNS: [Column; 16] = [
    Column::plain("target"),
    Column::plain("type"),
    Column::plain("pid"),
    Column::state("alive"),
    Column::plain("uptime"),
    Column::plain("cpu"),
    Column::plain("rss"),
    Column::state("mounted"),
    Column::wide("health"),
    Column::wide("users"),
    Column::wide("threads"),
    Column::wide("files"),
    Column::wide("source"),
    Column::wide("secret_ref"),
    Column::wide("storage"),
    Column::rest("path"),
];

/// How long a mount may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

pub(crate) fn ps(node: &Node, args: &PsArgs, mut output: impl Write) -> Result<Exit, Failure> {
    let stop = stop()?;
    loop {
        if args.watch && !args.json {
            // Clear the screen, and begin at its upper left.
            quiet_end(output.write_all(b"\x1b[2J\x1b[H")).context("unable to write", "stdout")?;
        }
        let tracked = look(node, args.target.as_deref());
        let tracked = tracked.context("unable to read", "/proc/self/mountinfo")?;
        let written = show(&tracked, args, &mut output);
        if let Err(why) = &written
            && why.kind() == std::io::ErrorKind::BrokenPipe
        {
            return Ok(Exit::Done);
        }
        written.context("unable to write", "stdout")?;
        if !args.watch {
            let is_missing = args.target.is_some() && tracked.is_empty();
            return Ok(if is_missing { Exit::No } else { Exit::Done });
        }
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(WATCH)).is_ok_and(|ready| ready > 0) {
            return Ok(Exit::Done);
        }
    }
}

fn show(
    all: &BTreeMap<String, Tracked>,
    args: &PsArgs,
    output: &mut impl Write,
) -> std::io::Result<()> {
    let mut table = Table::new(&COLUMNS);
    let has_detail = args.detailed || args.json;
    for ((target, tracked), detail) in all.iter().zip(details(all, has_detail)) {
        table.add(row(target, tracked, &detail, args.json));
    }
    if args.json {
        return table.write_json(output);
    }
    if args.detailed {
        table.write_blocks(output, Look::of_stdout(true))?;
    } else {
        table.write_text(output, Look::of_stdout(false))?;
    }
    let alive = all.values().filter(|tracked| tracked.is_alive).count();
    writeln!(output, "{} tracked, {alive} alive", all.len())?;
    output.flush()
}

/// What takes time to find out.
#[derive(Default)]
struct Detail {
    health: Option<&'static str>,
    /// The processes that have something open in the mount.
    users: Option<Vec<i32>>,
}

/// Of all at once: one that hangs keeps the others not waiting.
fn details(all: &BTreeMap<String, Tracked>, is_wanted: bool) -> Vec<Detail> {
    thread::scope(|scope| {
        let ask = |mount: &Mount| Detail {
            health: probe::health(mount, Depth::Daemon, ANSWER).ok().map(Health::word),
            users: scan::below(&mount.path).ok(),
        };
        let mounts = all.values().map(|tracked| tracked.mount.as_ref().filter(|_| is_wanted));
        let asked: Vec<_> =
            mounts.map(|mount| mount.map(|mount| scope.spawn(move || ask(mount)))).collect();
        let answers = asked.into_iter().map(|one| one.and_then(|one| one.join().ok()));
        answers.map(Option::unwrap_or_default).collect()
    })
}

/// For people: time as on a clock, memory in MiB; for programs: seconds and KiB.
fn row(target: &str, tracked: &Tracked, detail: &Detail, plain: bool) -> Vec<Value> {
    let usage = tracked.usage();
    let usage = usage.as_ref();
    let has_daemon = tracked.pid.is_some() || tracked.kind != Some("nfs");
    vec![
        json!(target),
        json!(tracked.kind),
        json!(tracked.pid),
        json!(has_daemon.then_some(tracked.is_alive)),
        json!(usage.map(|usage| match plain {
            true => json!(usage.uptime.as_secs()),
            false => json!(age(usage.uptime)),
        })),
        json!(usage.map(|usage| match plain {
            true => json!((usage.cpu() * 10.0).round() / 10.0),
            false => json!(format!("{:.1}%", usage.cpu())),
        })),
        json!(usage.map(|usage| match plain {
            true => json!(usage.rss),
            false => json!(format!("{}.{}M", usage.rss / 1024, usage.rss % 1024 * 10 / 1024)),
        })),
        json!(tracked.mount.is_some()),
        json!(detail.health),
        users(detail, plain),
        json!(usage.map(|usage| usage.threads)),
        json!(usage.map(|usage| usage.open_files)),
        json!(tracked.mount.as_ref().map(|mount| &mount.source)),
        json!(tracked.reference),
        json!(tracked.storage),
        json!(tracked.path),
    ]
}

/// Their numbers; for people, in one line.
fn users(detail: &Detail, plain: bool) -> Value {
    let Some(users) = &detail.users else { return Value::Null };
    match (plain, users.is_empty()) {
        (true, _) => json!(users),
        (false, true) => json!("none"),
        (false, false) => {
            json!(users.iter().map(i32::to_string).collect::<Vec<_>>().join(" "))
        }
    }
}
