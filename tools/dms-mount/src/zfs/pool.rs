//! A pool's name, as a request has it: nothing in it can be taken for an option, a path or a list.

use std::fmt;

use dms_wire::Invalid;

/// As long as ZFS lets a name be.
const MAX_NAME: usize = 255;

/// What ZFS keeps for itself, also as the beginning of a name.
const RESERVED: [&str; 4] = ["mirror", "raidz", "draid", "spare"];

/// The name of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool(String);

impl Pool {
    /// Letters, digits, `-_.:`, and a letter first, as zpool(8) has it; but for the space, which it
    /// allows and nobody wants.
    pub(crate) fn parse(text: &str) -> Result<Pool, Invalid> {
        let refuse = |why: &str| {
            let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
            Invalid(format!("backup_target.filesystem_export {shown} {why}"))
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if text.len() > MAX_NAME {
            return Err(refuse("is longer than 255 bytes"));
        }
        if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err(refuse("is no pool: its name does not begin with a letter"));
        }
        if !text.bytes().all(is_allowed) {
            return Err(refuse("is no pool: its name has other characters than a-z, 0-9 and -_.:"));
        }
        let is_disk = text.strip_prefix('c').is_some_and(|rest| rest.starts_with(char::is_numeric));
        if RESERVED.iter().any(|word| text.starts_with(word)) || text == "log" || is_disk {
            return Err(refuse("is no pool: ZFS keeps that name for itself"));
        }
        Ok(Pool(text.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the name of one of its datasets, or its own.
    pub(crate) fn has(&self, dataset: &str) -> bool {
        let rest = dataset.strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_name_and_nothing_else() {
        for good in ["tank", "ost0.pool", "a-b_c:d", "c", "cold", "logs"] {
            assert!(Pool::parse(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "-f",
            "--",
            "/tank",
            "tank/ds",
            "tank@a",
            "a b",
            "a ",
            " a",
            "a\tb",
            "a,b",
            "0pool",
            ".a",
            "..",
            "mirror",
            "mirror1",
            "raidz2",
            "spare",
            "log",
            "c0t0d0",
            "a;b",
            "a=b",
            "t\u{e4}nk",
            "$(x)",
            "a\0",
        ] {
            assert!(Pool::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Pool::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_dataset_is_of_the_pool_that_it_is_named_after() {
        let pool = Pool::parse("tank").expect("a name");
        assert!(pool.has("tank") && pool.has("tank/a/b") && pool.has("tank@s"));
        assert!(!pool.has("tank2") && !pool.has("tan") && !pool.has("x/tank"));
    }
}
