//! What the URLs in settings have in common: a user and a password, in which whatever has a meaning
//! in a URL is escaped.

use percent_encoding::percent_decode_str;

/// What to do about a password that ends the URL's user and password too early.
pub const ESCAPE_PASSWORD: &str =
    "in a user name or password, write # as %23, / as %2F and ? as %3F";

/// A part of a URL, with its escapes undone. `what` it is stands in the error, the part does not.
///
/// # Errors
/// If it is not UTF-8.
pub fn unescape(text: &str, what: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| format!("{what} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_no_secret_is_quoted() {
        assert_eq!(unescape("p%40ss%2Fw", "the password"), Ok("p@ss/w".into()));
        assert_eq!(unescape("%ff", "the password"), Err("the password is not UTF-8".into()));
    }
}
