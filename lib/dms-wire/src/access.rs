//! How a pool is used: by readers only, or by whoever writes too.

use serde::{Deserialize, Serialize};

/// How a pool is imported. Less is less: who may write may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// Nothing is written, not even by the file system itself.
    #[serde(rename = "ro")]
    ReadOnly,
    /// By one host at a time.
    #[serde(rename = "rw")]
    ReadWrite,
}

impl Access {
    /// What a list of options with commas between asks for.
    pub fn of_options(options: &str) -> Access {
        let is_there = |word: &str| options.split(',').any(|option| option.trim() == word);
        if is_there("ro") && !is_there("rw") { Access::ReadOnly } else { Access::ReadWrite }
    }

    /// The word on the wire and in the ledger.
    pub fn word(self) -> &'static str {
        match self {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "read-write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_only_that_does_not_say_so() {
        for (options, access) in [
            ("", Access::ReadWrite),
            ("rw", Access::ReadWrite),
            ("ro", Access::ReadOnly),
            ("device_dir=/dev, ro", Access::ReadOnly),
            ("ro,rw", Access::ReadWrite),
            ("RO", Access::ReadWrite),
        ] {
            assert_eq!(Access::of_options(options), access, "{options}");
        }
        assert!(Access::ReadWrite > Access::ReadOnly);
    }
}
