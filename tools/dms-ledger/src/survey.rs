//! What `dms-mount list` says is mounted on a node, and which boot of the node said so.
//!
//! Its last line says how many mounts there were: a list that was cut, or that never came, is
//! refused, or it would say that what it lacks is not mounted.

use std::path::Path;
use std::time::Duration;

use dms_cli::{Context, Failure, Settings, boot_id, refuse};
use dms_wire::{Host, Line, Lines, MAX_LINE, TargetId};
use serde::Deserialize;

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
}

/// The last line.
#[derive(Debug, Deserialize)]
struct End {
    host: String,
    boot: String,
    uptime: f64,
    /// How many lines are before it.
    mounts: usize,
}

/// Any line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Listed {
    End(End),
    Mounted(Mounted),
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
    /// The boot.
    pub(crate) boot: String,
    /// How long the node has been up.
    pub(crate) uptime: Duration,
    pub(crate) mounts: Vec<Mounted>,
}

impl Survey {
    /// Reads the list of `host` from standard input.
    pub(crate) fn read(host: Host, settings: &Settings) -> Result<Survey, Failure> {
        let mut mounts: Vec<Mounted> = Vec::new();
        let mut end: Option<End> = None;
        let mut lines = Lines::on_stdin(MAX_LINE).context("unable to read", "stdin")?;
        while let Some(line) = lines.next_line().context("unable to read", "stdin")? {
            let listed = match line {
                Line::Text(text) => serde_json::from_slice::<Listed>(&text).ok(),
                Line::TooLong => None,
            };
            let number = mounts.len() + 1 + usize::from(end.is_some());
            let unknown = || refuse(&format!("line {number} on stdin is not of `dms-mount list`"));
            // Behind the last line there is nothing of this list.
            match listed.filter(|_| end.is_none()).ok_or_else(unknown)? {
                Listed::End(last) => {
                    is_of(&last.host, &host)?;
                    end = Some(last);
                }
                Listed::Mounted(mounted) => {
                    is_of(&mounted.host, &host)?;
                    // An id that cannot be one is nobody's of ours.
                    let is_id = |id: &String| TargetId::try_from(id.clone()).is_ok();
                    mounts.push(Mounted { target: mounted.target.filter(is_id), ..mounted });
                }
            }
        }
        let end = end.filter(|end| end.mounts == mounts.len()).ok_or_else(cut)?;
        let is_here = host.as_str() == settings.node_id;
        if is_here && boot_id().is_ok_and(|now| now != end.boot) {
            return Err(refuse("the list on stdin is of another boot of this node"));
        }
        let uptime = Duration::try_from_secs_f64(end.uptime).map_err(|_| cut())?;
        Ok(Survey { host, boot: end.boot, uptime, mounts })
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

fn is_of(found: &str, host: &Host) -> Result<(), Failure> {
    if found == host.as_str() {
        return Ok(());
    }
    let found = dms_cli::plain(found);
    Err(refuse(&format!("the list on stdin is of {found}, not of {host}")))
}

/// It may be whole the next time.
fn cut() -> Failure {
    Failure::temporary("the list on stdin is not whole: `dms-mount list` failed, or it was cut")
}
