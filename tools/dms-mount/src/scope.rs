//! Under systemd, a daemon lives in a scope of its own: what ends with the unit that has started
//! it, would take the jobs' data with it.

use std::path::Path;
use std::process::Command;

use dms_cli::random_id;
use dms_wire::TargetId;

use crate::s3::find_in_search_path;

/// Whose limits and whose accounts the daemons' are.
const SLICE: &str = "dms-mounts.slice";

/// Set while systemd is process 1.
pub(crate) const BOOTED: &str = "/run/systemd/system";

/// How much of a target's id is in a unit's name, which may have 255 bytes.
const LONGEST: usize = 120;

/// The scope of a target's daemon.
pub(crate) struct Scope {
    name: String,
    /// systemd's unit of the mount: at shutdown it is unmounted before its daemon is ended.
    mount: String,
}

impl Scope {
    /// A new one: that of an earlier daemon may not be gone yet.
    pub(crate) fn new(target: &TargetId, path: &Path) -> std::io::Result<Scope> {
        let number = random_id()?;
        let id: String = escape(target.as_str()).chars().take(LONGEST).collect();
        Ok(Scope {
            name: format!("dms-mount-{id}-{}", &number[..8]),
            mount: format!("{}.mount", escape(path.to_string_lossy().trim_matches('/'))),
        })
    }

    /// A command that makes a scope and becomes what is added to it. A command line shows no
    /// secret, and the environment stays with the process: systemd is told neither.
    pub(crate) fn command(&self, part: &str) -> Command {
        let program = find_in_search_path("systemd-run").unwrap_or_else(|| "systemd-run".into());
        let mut command = Command::new(program);
        command
            .args(["--scope", "--quiet", "--collect"])
            .arg(format!("--slice={SLICE}"))
            .arg(format!("--unit={}{part}.scope", self.name))
            .arg("--property=After=network.target")
            .arg(format!("--property=Before={}", self.mount))
            .arg("--");
        command
    }
}

/// As systemd writes names of units (systemd-escape(1)).
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if index == 0 => escaped.push_str("\\x2e"),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b':' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_systemd_writes_them() {
        assert_eq!(escape("var/lib/trilio-x/t 1"), "var-lib-trilio\\x2dx-t\\x201");
        assert_eq!(escape(".ü"), "\\x2e\\xc3\\xbc");
    }

    #[test]
    fn the_name_of_a_unit_is_not_too_long() {
        let target = TargetId::try_from("ü".repeat(100)).expect("200 bytes");
        let scope = Scope::new(&target, Path::new("/m/x")).expect("/proc is there");
        assert!(scope.name.len() + "-log.scope".len() <= 255);
        assert_eq!(scope.mount, "m-x.mount");
    }
}
