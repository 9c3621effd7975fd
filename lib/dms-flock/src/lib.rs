//! flock(2), bounded.
//!
//! Three things that every tool with a lock needs: a lock file that is still the one at its path
//! once it is locked ([`Lock`]), a lock that says that a run is alive ([`life`]), and a say in
//! which descriptors a child inherits ([`Lock::pass_on`], [`keep_from_children`]). What the locks
//! mean, and in which order they are taken, is up to the tools.

pub mod life;
mod lock;
mod sys;

pub use lock::{Lock, Mode, Passed, Wait, make_dir};
pub use sys::keep_from_children;
