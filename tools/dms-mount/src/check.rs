//! `check`: is all there that this node needs? A line for each thing.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use dms_cli::{Context, Exit, Failure, quiet_end};
use dms_wire::{Deadline, ErrorCode};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;

use crate::node::Node;
use crate::zfs::Tools;

/// How long the key manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found of one thing.
enum Verdict {
    Good(String),
    /// It will work, but not as it should.
    Poor(String),
    Bad(String),
}

use Verdict::{Bad, Good, Poor};

pub(crate) fn check(node: &Node, mut output: impl Write) -> Result<Exit, Failure> {
    let mut verdicts = vec![root(), fuse(), s3_program(node), umount(), nfs_helper(), zfs_tools()];
    verdicts.extend([run_dir(node), namespace()]);
    verdicts.extend(node.bases.iter().map(|base| mount_base(base)));
    verdicts.extend([secrets(node), key_manager(node)]);
    let mut exit = Exit::Done;
    for verdict in verdicts {
        let (word, text) = match verdict {
            Good(text) => ("ok", text),
            Poor(text) => ("warning", text),
            Bad(text) => {
                exit = Exit::No;
                ("error", text)
            }
        };
        quiet_end(writeln!(output, "{word}: {}", dms_cli::plain(&text)))
            .context("unable to write", "stdout")?;
    }
    Ok(exit)
}

fn root() -> Verdict {
    if geteuid().is_root() {
        Good("this is root".into())
    } else {
        Bad(format!("user {} may not mount", geteuid()))
    }
}

fn fuse() -> Verdict {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Good("/dev/fuse can be opened".into()),
        Err(why) => Bad(format!("unable to open /dev/fuse: {why}")),
    }
}

fn s3_program(node: &Node) -> Verdict {
    let profile = &node.s3.profile;
    match profile.find_program() {
        Some(path) => Good(format!("S3 targets by {}, {}", profile.name, path.display())),
        None => Bad(format!("S3 targets by {}: it is not installed", profile.program_name())),
    }
}

fn umount() -> Verdict {
    match crate::s3::find_in_search_path("umount") {
        Some(path) => Good(format!("unmounting by {}", path.display())),
        None => Bad("umount is not installed".into()),
    }
}

fn nfs_helper() -> Verdict {
    match crate::s3::find_in_search_path("mount.nfs") {
        Some(path) => Good(format!("NFS targets by {}", path.display())),
        None => Poor("mount.nfs is not installed: no NFS targets".into()),
    }
}

fn zfs_tools() -> Verdict {
    let tools = match Tools::find(ErrorCode::Internal) {
        Ok(tools) => tools,
        Err(_) => return Poor("zpool is not installed: no ZFS targets".into()),
    };
    let shown = tools.path().display();
    match tools.list(Deadline::after(PATIENCE), ErrorCode::Internal) {
        Ok(_) => Good(format!("ZFS targets by {shown}")),
        Err(why) => {
            log::info!("{why}");
            Poor(format!("no ZFS targets: {shown} lists no pools; is its daemon or module there?"))
        }
    }
}

fn run_dir(node: &Node) -> Verdict {
    let path = node.run_dir.path();
    let shown = path.display();
    if let Err(why) = node.run_dir.try_writing() {
        return Bad(format!("unable to write into {shown}: {why}"));
    }
    match statfs(path) {
        Ok(about) if about.filesystem_type() == TMPFS_MAGIC => {
            Good(format!("{shown} is writable, and does not outlive a boot"))
        }
        Ok(_) => Poor(format!("{shown} is no tmpfs: records outlive the mounts")),
        Err(why) => Bad(format!("unable to look at {shown}: {}", why.desc())),
    }
}

/// Mounts in a namespace of our own are seen by no job.
fn namespace() -> Verdict {
    let (ours, first) = (fs::read_link("/proc/self/ns/mnt"), fs::read_link("/proc/1/ns/mnt"));
    match (ours, first) {
        (Ok(ours), Ok(first)) if ours == first => Good("mounts are seen by the whole host".into()),
        (Ok(_), Ok(_)) => {
            Poor("this is a mount namespace of its own: does the host see its mounts?".into())
        }
        _ => Poor("unable to look at /proc/1/ns/mnt: does the host see our mounts?".into()),
    }
}

fn mount_base(base: &Path) -> Verdict {
    let shown = base.display();
    match fs::metadata(base) {
        Ok(about) if about.is_dir() => Good(format!("mount base {shown} is there")),
        Ok(_) => Bad(format!("mount base {shown} is no directory")),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            Good(format!("mount base {shown} will be made"))
        }
        Err(why) => Bad(format!("unable to look at mount base {shown}: {why}")),
    }
}

fn secrets(node: &Node) -> Verdict {
    match node.secrets.dir() {
        Some(dir) if dir.is_dir() => Good(format!("secrets in {}", dir.display())),
        Some(dir) => Bad(format!("there is no directory {} for secrets", dir.display())),
        None => Poor("DMS_SECRET_DIR is not set: no file:// secrets".into()),
    }
}

/// Without a token: whether one would be let in, only a request can tell.
fn key_manager(node: &Node) -> Verdict {
    match node.secrets.check_key_manager(Deadline::after(PATIENCE)) {
        Ok(Some(text)) => Good(text),
        Ok(None) => Poor(
            "neither DMS_BARBICAN_URL nor DMS_AUTH_URL is set: no secrets of a key manager".into(),
        ),
        Err(why) => Bad(why),
    }
}
