//! A string that cannot be printed by accident.

/// A token or a key. Whatever prints it, prints `***REDACTED***`; only [`Secret::reveal`] gives
/// the value, and the places that call it can be counted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one peer that it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` with every occurrence of the value blanked: for the words of a program that knew it.
    pub fn blank(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, REDACTED) }
    }
}

const REDACTED: &str = "***REDACTED***";

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "***REDACTED*** ***REDACTED***");
    }

    #[test]
    fn a_secret_is_blanked_in_a_text_that_quotes_it() {
        assert_eq!(Secret::new("k").blank("a k b"), "a ***REDACTED*** b");
        assert_eq!(Secret::new("").blank("a"), "a");
    }
}
