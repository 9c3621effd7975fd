//! Process 1 of a node: makes the namespaces look like a host that has just booted, and then only
//! reaps. When the run that started it is gone, it ends, and with it all of the node.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, sethostname};

/// What it is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The node's directory
    root: PathBuf,
    /// Its name
    name: String,
    /// The id of this boot
    boot: String,
    /// Its address
    address: String,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let run_dir = options.root.join("run");
    drop_copies();
    mount_fs("proc", Path::new("/proc"))?;
    mount_fs("tmpfs", &run_dir)?;
    // libfaketime(1) leaves something there for each process that is killed.
    mount_fs("tmpfs", Path::new("/dev/shm"))?;
    for dir in ["dms", "lock"] {
        fs::create_dir(run_dir.join(dir))?;
    }
    let boot_id = run_dir.join("boot_id");
    fs::write(&boot_id, format!("{}\n", options.boot))?;
    let kernels = Path::new("/proc/sys/kernel/random/boot_id");
    mount(Some(&boot_id), kernels, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    sethostname(&options.name)?;
    name_itself(options, &run_dir)?;
    start_zfs(&options.root)?;
    thread::spawn(reap);
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready").and_then(|()| stdout.flush())?;
    io::stdin().lock().read_to_end(&mut Vec::new()).map(|_| ())
}

/// A copy of a FUSE mount in a namespace of its own keeps its daemon alive: what others on this machine
/// have mounted is theirs to end. What cannot be taken away here is theirs as before.
fn drop_copies() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_fuse = |line: &&str| {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        kind.is_some_and(|kind| kind == "fuse" || kind.starts_with("fuse."))
    };
    let paths = mounts.lines().filter(is_fuse).filter_map(|line| line.split(' ').nth(4));
    for path in paths.collect::<Vec<_>>().into_iter().rev() {
        let path = path.replace("\\040", " ").replace("\\134", "\\");
        let _ = umount2(&*path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

/// Its name is known: by the address of it, ZFS knows the host again that had a pool before.
fn name_itself(options: &Options, run_dir: &Path) -> io::Result<()> {
    let hosts = run_dir.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{} {}\n", options.address, options.name))?;
    Ok(mount(Some(&hosts), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// What stands for ZFS in the node's kernel. It wants these directories for itself.
fn start_zfs(root: &Path) -> io::Result<()> {
    for dir in ["/run/zfs", "/run/lock/zfs", "/var/lib/zfs", "/etc/zfs"] {
        fs::create_dir_all(dir)?;
        mount_fs("tmpfs", Path::new(dir))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(root.join("logs/zfs-fuse"))?;
    let mut daemon = Command::new("zfs-fuse");
    daemon.arg("--no-daemon").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    daemon.spawn().map(drop)
}

fn mount_fs(kind: &str, at: &Path) -> io::Result<()> {
    Ok(mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)?)
}

fn reap() {
    loop {
        if waitpid(Pid::from_raw(-1), None) == Err(Errno::ECHILD) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
