//! `ps`: the daemons of our mounts, and how they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, Table, quiet_end};
use dms_wire::Deadline;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::cli::PsArgs;
use crate::daemon::Identity;
use crate::inventory;
use crate::node::Node;
use crate::process::{Usage, elapsed};
use crate::serve::stop;

/// Between two looks, in milliseconds.
const WATCH: u16 = 2000;

/// A target that has, or had, a daemon.
#[derive(Default)]
struct Tracked {
    pid: Option<i32>,
    is_alive: bool,
    path: Option<String>,
    is_mounted: bool,
    source: Option<String>,
    secret_ref: Option<String>,
}

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

/// By target: what is mounted, what is on record, and what has a PID file only.
fn look(node: &Node, only: Option<&str>) -> std::io::Result<BTreeMap<String, Tracked>> {
    let mut all: BTreeMap<String, Tracked> = BTreeMap::new();
    for (target, pid) in node.run_dir.pid_files() {
        all.entry(target.to_string()).or_default().pid = pid;
    }
    for record in node.run_dir.records() {
        let tracked = all.entry(record.target.to_string()).or_default();
        tracked.path = Some(record.path.display().to_string());
        tracked.secret_ref = Some(record.source);
        if let Some(daemon) = record.daemon {
            tracked.pid = Some(daemon.pid);
            tracked.is_alive = Identity::is_alive(&daemon);
        }
    }
    for entry in inventory::take(node)? {
        let Some(target) = entry.target.clone() else { continue };
        let tracked = all.entry(target).or_default();
        tracked.is_mounted = true;
        tracked.path = Some(entry.mount.path.display().to_string());
        tracked.source = Some(entry.mount.source);
    }
    all.retain(|target, _| only.is_none_or(|only| only == target));
    Ok(all)
}

fn show(
    all: &BTreeMap<String, Tracked>,
    args: &PsArgs,
    output: &mut impl Write,
) -> std::io::Result<()> {
    const SHORT: [&str; 8] = ["target", "pid", "alive", "uptime", "cpu", "rss", "mounted", "path"];
    const LONG: [&str; 12] = [
        "target",
        "pid",
        "alive",
        "uptime",
        "cpu",
        "rss",
        "mounted",
        "path",
        "threads",
        "files",
        "source",
        "secret_ref",
    ];
    let mut table = Table::new(if args.detailed || args.json { &LONG } else { &SHORT });
    let up = Duration::try_from_secs_f64(Deadline::after(Duration::ZERO).seconds());
    for (target, tracked) in all {
        let pid = tracked.pid.filter(|_| tracked.is_alive);
        let usage = pid.and_then(|pid| Usage::of(pid, up.clone().unwrap_or_default()));
        let mut row = row(target, tracked, usage.as_ref(), args.json);
        if args.detailed || args.json {
            row.extend([
                json!(usage.as_ref().map(|usage| usage.threads)),
                json!(usage.as_ref().map(|usage| usage.open_files)),
                json!(tracked.source),
                json!(tracked.secret_ref),
            ]);
        }
        table.add(row);
    }
    if args.json {
        return table.write_json(output);
    }
    table.write_text(output)?;
    let alive = all.values().filter(|tracked| tracked.is_alive).count();
    writeln!(output, "{} tracked, {alive} alive", all.len())?;
    output.flush()
}

/// For people: time as on a clock, memory in MiB; for programs: seconds and KiB.
fn row(target: &str, tracked: &Tracked, usage: Option<&Usage>, plain: bool) -> Vec<Value> {
    let (uptime, cpu, rss) = match (usage, plain) {
        (None, _) => (Value::Null, Value::Null, Value::Null),
        (Some(usage), true) => {
            let cpu = (usage.cpu * 10.0).round() / 10.0;
            (json!(usage.uptime.as_secs()), json!(cpu), json!(usage.rss))
        }
        (Some(usage), false) => (
            json!(elapsed(usage.uptime)),
            json!(format!("{:.1}%", usage.cpu)),
            json!(format!("{}.{}M", usage.rss / 1024, usage.rss % 1024 * 10 / 1024)),
        ),
    };
    let mounted = json!(tracked.is_mounted);
    vec![
        json!(target),
        json!(tracked.pid),
        json!(tracked.is_alive),
        uptime,
        cpu,
        rss,
        mounted,
        json!(tracked.path),
    ]
}
