//! What `dms-mount list` says is mounted on a node, and which boot of the node said so.

use std::path::Path;

use dms_cli::{Context, Failure, Settings, boot_id, refuse};
use dms_wire::{Deadline, Host, Line, Lines, MAX_LINE, TargetId};
use serde::Deserialize;
use std::time::Duration;

/// A line of the list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mounted {
    host: String,
    /// Which target it is; none: somebody else's mount.
    pub(crate) target: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) path: String,
    /// As the kernel has it.
    pub(crate) source: String,
    fstype: String,
    /// What the node remembers to have mounted: the one or the other.
    secret_ref: Option<String>,
    export: Option<String>,
    /// Its daemon, if that runs.
    pid: Option<i32>,
    boot: Option<String>,
    uptime: Option<f64>,
}

impl Mounted {
    /// What the node remembers to have mounted.
    pub(crate) fn remembered(&self) -> Option<&String> {
        self.secret_ref.as_ref().or(self.export.as_ref())
    }

    /// Whether there is somebody behind it.
    pub(crate) fn is_served(&self) -> bool {
        self.pid.is_some() || !self.fstype.starts_with("fuse")
    }
}

/// A node, and what is mounted there.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) host: Host,
    /// The boot, if it is known.
    pub(crate) boot: Option<String>,
    /// How long the node has been up.
    pub(crate) uptime: Option<Duration>,
    pub(crate) mounts: Vec<Mounted>,
}

impl Survey {
    /// Reads the list of `host` from standard input. Nothing mounted is an empty list: then the
    /// boot is known only of this node itself.
    pub(crate) fn read(host: Host, settings: &Settings) -> Result<Survey, Failure> {
        let mut mounts: Vec<Mounted> = Vec::new();
        let mut lines = Lines::on_stdin(MAX_LINE).context("unable to read", "stdin")?;
        while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
            let mounted = match line {
                Line::Text(text) => serde_json::from_slice::<Mounted>(&text).ok(),
                Line::TooLong => None,
            };
            let number = mounts.len() + 1;
            let mounted = mounted.ok_or_else(|| {
                refuse(&format!("line {number} on stdin is not of `dms-mount list`"))
            })?;
            if mounted.host != host.as_str() {
                let found = dms_cli::plain(&mounted.host);
                return Err(refuse(&format!("the list on stdin is of {found}, not of {host}")));
            }
            // An id that cannot be one is nobody's of ours.
            let is_id = |id: &String| TargetId::try_from(id.clone()).is_ok();
            mounts.push(Mounted { target: mounted.target.filter(is_id), ..mounted });
        }
        let (boot, uptime) = match mounts.first() {
            Some(line) => (line.boot.clone(), line.uptime),
            None if host.as_str() == settings.node_id => {
                let boot =
                    boot_id().context("unable to read", "/proc/sys/kernel/random/boot_id")?;
                (Some(boot), Some(Deadline::after(Duration::ZERO).seconds()))
            }
            None => (None, None),
        };
        if host.as_str() == settings.node_id
            && boot.as_ref().is_some_and(|then| boot_id().is_ok_and(|now| now != *then))
        {
            return Err(refuse("the list on stdin is of another boot of this node"));
        }
        let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(Survey { host, boot, uptime, mounts })
    }

    /// What is mounted for the target.
    pub(crate) fn of(&self, target: &str) -> Option<&Mounted> {
        self.mounts.iter().find(|mounted| mounted.target.as_deref() == Some(target))
    }

    /// What is mounted at the path.
    pub(crate) fn at(&self, path: &str) -> Option<&Mounted> {
        // The last of two at one path hides the other.
        self.mounts.iter().rev().find(|mounted| Path::new(&mounted.path) == Path::new(path))
    }
}
