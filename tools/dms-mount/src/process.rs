//! What /proc says of a process.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// How a process is, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usage {
    pub(crate) uptime: Duration,
    /// How much of a processor's time it has had.
    pub(crate) busy: Duration,
    /// What it has in memory, in KiB.
    pub(crate) rss: u64,
    pub(crate) threads: u64,
    pub(crate) open_files: usize,
}

impl Usage {
    /// Of the process with this number, while the machine has been up for so long.
    pub(crate) fn of(pid: i32, machine_up: Duration) -> Option<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let open_files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
        Usage::read(&stat, &status, open_files, u64::try_from(ticks).ok()?, machine_up)
    }

    /// Of one processor, over all its life, in percent.
    pub(crate) fn cpu(&self) -> f64 {
        100.0 * self.busy.as_secs_f64() / self.uptime.as_secs_f64().max(0.01)
    }

    fn read(
        stat: &str,
        status: &str,
        open_files: usize,
        ticks: u64,
        machine_up: Duration,
    ) -> Option<Usage> {
        // `pid (comm) S ...`: the name may contain anything, so count from its last parenthesis,
        // behind which the fields begin with number 3.
        let fields: Vec<&str> =
            stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let time = |ticks_since: u64| Duration::from_millis(ticks_since * 1000 / ticks);
        let uptime = machine_up.saturating_sub(time(number(22)?));
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        Some(Usage {
            uptime,
            busy: time(number(14)? + number(15)?),
            rss: rss.unwrap_or_default(),
            threads: number(20)?,
            open_files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 50 50 0 0 20 0 3 0 1000 9 9";
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t3\n";
        let usage =
            Usage::read(stat, status, 5, 100, Duration::from_secs(20)).expect("well-formed");
        assert_eq!(usage.uptime, Duration::from_secs(10));
        assert!((usage.cpu() - 10.0).abs() < 0.01, "{usage:?}");
        assert_eq!((usage.rss, usage.threads, usage.open_files), (2048, 3, 5));
    }
}
