//! `metrics`: the daemons in numbers, for Prometheus.

use std::io::Write;

use dms_cli::{Context, Exit, Failure, Family, quiet_end};

use crate::node::Node;
use crate::tracked;

pub(crate) fn metrics(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let all = tracked::look(node, None).context("unable to read", "/proc/self/mountinfo")?;
    let gauge = |name, help| Family::new(name, "gauge", help);
    let host = [("host", node.id.as_str())];
    let count =
        |is_so: fn(&tracked::Tracked) -> bool| all.values().filter(|one| is_so(one)).count();

    let mut mounted = gauge("dms_targets_mounted", "Targets that are mounted on the host.");
    mounted.add("", &host, count(|one| one.mount.is_some()));
    let mut known = gauge("dms_daemons_tracked", "FUSE daemons that are on record.");
    known.add("", &host, count(|one| one.pid.is_some()));
    let mut alive = gauge("dms_daemons_alive", "FUSE daemons that are on record and run.");
    alive.add("", &host, count(|one| one.is_alive));
    let help = "How much of a processor's time a target's daemon has had.";
    let mut busy = Family::new("dms_daemon_cpu_seconds_total", "counter", help);
    let mut memory = gauge("dms_daemon_resident_bytes", "What a target's daemon has in memory.");
    for (target, tracked) in &all {
        if let Some(usage) = tracked.usage() {
            let labels = [host[0], ("target", target.as_str())];
            busy.add("", &labels, format!("{:.2}", usage.busy.as_secs_f64()));
            memory.add("", &labels, usage.rss * 1024);
        }
    }
    let text: String = [mounted, known, alive, busy, memory].iter().map(Family::text).collect();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    quiet_end(written).context("unable to write", "stdout")?;
    Ok(Exit::Done)
}
