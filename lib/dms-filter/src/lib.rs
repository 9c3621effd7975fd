//! A line filter that is kept running as a child: a line in, a line out.
//!
//! It is a process group, so that it can be ended as a whole, also where it has started groups of
//! its own. What the lines mean, and when a filter is to be started, is its user's business.

mod descendants;
mod filter;

pub use filter::{Filter, Lost};
