//! A secret in a file.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use super::{MAX_SECRET, NoCredentials, Result, no};

/// A file below the secret directory, reached through no symbolic link, that only its owner (root,
/// or whoever we are) can read.
pub(super) fn read(path: &Path, secret_dir: Option<&Path>) -> Result<Vec<u8>> {
    let Some(dir) = secret_dir else {
        return no("file:// secrets are off: DMS_SECRET_DIR is not set");
    };
    let below = path.strip_prefix(dir).ok().filter(|rest| {
        rest.components().count() > 0
            && rest.components().all(|part| matches!(part, Component::Normal(_)))
    });
    let Some(below) = below else {
        return no(format_args!("{} is not below {}", path.display(), dir.display()));
    };
    let file = match open_below(dir, below) {
        Ok(file) => File::from(file),
        Err(why) => return no(format_args!("unable to open {}: {}", path.display(), why.desc())),
    };
    let reading = |why: std::io::Error| {
        NoCredentials(format!(
            "Failed to fetch credentials: unable to read {}: {why}",
            path.display()
        ))
    };
    let about = file.metadata().map_err(reading)?;
    let is_ours = about.uid() == 0 || about.uid() == geteuid().as_raw();
    if !about.is_file() || about.mode() & 0o077 != 0 || !is_ours {
        return no(format_args!(
            "{} is not a file of ours that nobody else can read (0600)",
            path.display()
        ));
    }
    let mut text = Vec::new();
    file.take(MAX_SECRET).read_to_end(&mut text).map_err(reading)?;
    Ok(text)
}

fn open_below(dir: &Path, below: &Path) -> std::result::Result<OwnedFd, Errno> {
    let common = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(dir, directory, Mode::empty())?;
    let mut parts = below.iter().peekable();
    while let Some(part) = parts.next() {
        // Non-blocking, or a FIFO would keep us waiting for its writer.
        let flags = match parts.peek() {
            Some(_) => directory | common,
            None => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | common,
        };
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_private_file_below_the_directory_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        let file = dir.join("s.json");
        fs::write(&file, "{}").expect("it can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert!(read(&file, Some(dir)).is_ok());
        assert!(read(&file, None).is_err(), "off by default");
        assert!(read(&dir.join("x/../s.json"), Some(dir)).is_err());
        assert!(read(Path::new("/etc/passwd"), Some(dir)).is_err());
        assert!(read(dir, Some(dir)).is_err());
        let link = dir.join("link.json");
        std::os::unix::fs::symlink(&file, &link).expect("a fresh name");
        assert!(read(&link, Some(dir)).is_err(), "a link was followed");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
        assert!(read(&file, Some(dir)).is_err(), "others can read it");
    }
}
