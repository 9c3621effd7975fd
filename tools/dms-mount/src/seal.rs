//! The immutable flag of a directory, which keeps root, too, from making files in it.

use std::fs::File;
use std::io;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// Sets it or takes it away.
pub(crate) fn set(directory: &File, is_sealed: bool) -> io::Result<()> {
    let mut flags = ioctl_getflags(directory)?;
    if flags.contains(IFlags::IMMUTABLE) == is_sealed {
        return Ok(());
    }
    flags.set(IFlags::IMMUTABLE, is_sealed);
    Ok(ioctl_setflags(directory, flags)?)
}

/// Whether it failed because the file system has no such flag.
pub(crate) fn is_unknown(why: &io::Error) -> bool {
    let unknown = [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    Errno::from_io_error(why).is_some_and(|errno| unknown.contains(&errno))
}
