//! Why an act failed.

use dms_wire::{ErrorCode, Invalid};

use crate::place::Unfit;

/// An act that failed: the word for programs, and the text for people.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

impl Failed {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Failed { code, text: text.into() }
    }

    /// A failure of this node's own files or processes.
    pub(crate) fn system(code: ErrorCode, what: &str, why: &std::io::Error) -> Self {
        Failed::new(code, format!("{what}: {why}"))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Invalid> for Failed {
    fn from(why: Invalid) -> Self {
        Failed::new(ErrorCode::Validation, why.0)
    }
}

impl Failed {
    /// A step that failed because time was up has not shown that it cannot be done.
    pub(crate) fn after_the_deadline(self) -> Self {
        match self.code {
            ErrorCode::Validation | ErrorCode::Stale => self,
            // It says so already, if not as the first word.
            _ if self.text.contains("timeout: ") => self,
            code => Failed { code, text: format!("timeout: {}", self.text) },
        }
    }
}

impl From<Unfit> for Failed {
    fn from(why: Unfit) -> Self {
        match why {
            Unfit::Invalid(why) => why.into(),
            Unfit::Failed(text) => Failed::new(ErrorCode::Mount, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_too_late_says_so_once() {
        let late = |text: &str| Failed::new(ErrorCode::Mount, text).after_the_deadline().text;
        assert_eq!(late("Mount failed: x"), "timeout: Mount failed: x");
        assert_eq!(late("timeout: x"), "timeout: x");
        let fetched = "Failed to fetch credentials: timeout: https://kms does not answer in time";
        assert_eq!(late(fetched), fetched);
        assert_eq!(late("unable to make /m/timeout"), "timeout: unable to make /m/timeout");
    }
}
