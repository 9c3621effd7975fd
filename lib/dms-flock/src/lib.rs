//! flock(2), bounded.
//!
//! What every tool with a lock needs: a lock file that is still the one at its path
//! once it is locked ([`Lock`]), a lock that says that a run is alive ([`life`]), a say in
//! which descriptors a child inherits ([`Lock::pass_on`], [`keep_from_children`]), and who holds what,
//! as the kernel has it ([`kernel`]). What the locks
//! mean, and in which order they are taken, is up to the tools.

mod access;
mod file;
pub mod kernel;
pub mod life;
mod lock;
mod sys;

pub use access::{Access, make_dir};
pub use file::LockFile;
pub use lock::{Lock, Mode, Passed, Wait};
pub use sys::keep_from_children;
