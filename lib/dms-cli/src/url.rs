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

/// The URL, or the list of URLs, without passwords: for people.
pub(crate) fn hide_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|start| start + "://".len()) {
        let next = rest[start..].find("://").map_or(rest.len(), |next| start + next);
        // The last one: a password that nobody has escaped may have one in it.
        let end = rest[start..next].rfind('@').map_or(start, |end| start + end);
        let user = rest[start..end].find(':').map_or(end, |user| start + user);
        shown.push_str(&rest[..user]);
        if user < end {
            shown.push_str(":***");
        }
        let (host, behind) = rest[end..].split_at(next - end);
        shown.push_str(&hide_parameters(host));
        rest = behind;
    }
    shown + rest
}

/// A password may stand in a URL's query, too.
fn hide_parameters(text: &str) -> String {
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    let hide = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("pass") => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(hide).collect();
    format!("{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        for (text, shown) in [
            ("mysql://dms:s3cr:e@t@db/dms", "mysql://dms:***@db/dms"),
            ("amqp://a:b@h1:5672/v,amqps://c:d@h2", "amqp://a:***@h1:5672/v,amqps://c:***@h2"),
            (
                "mysql://dms@db:3306/dms?ssl_ca=/x&Password=y",
                "mysql://dms@db:3306/dms?ssl_ca=/x&Password=***",
            ),
            ("sqlite:////var/lib/ledger.db", "sqlite:////var/lib/ledger.db"),
            ("/var/lib:/srv", "/var/lib:/srv"),
        ] {
            assert_eq!(hide_passwords(text), shown);
        }
    }

    #[test]
    fn escapes_are_undone_and_no_secret_is_quoted() {
        assert_eq!(unescape("p%40ss%2Fw", "the password"), Ok("p@ss/w".into()));
        assert_eq!(unescape("%ff", "the password"), Err("the password is not UTF-8".into()));
    }
}
