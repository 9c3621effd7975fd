//! The reference to a secret in a key manager. Only what stands in it is taken out, its place and
//! its id; the reference itself is sent nowhere.

use super::endpoint::Endpoint;
use super::{Result, no};

/// A secret, and the key manager that the reference says it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) at: Endpoint,
    /// A UUID in lower case.
    pub(super) id: String,
}

impl Reference {
    /// `URL/v1/secrets/UUID`, also with `/payload` or a slash behind it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let url = Endpoint::parse(text)
            .or_else(|why| no(format_args!("the secret_ref is no reference to a secret: {why}")))?;
        let path = url.path();
        let path = path.strip_suffix("/payload").unwrap_or(path);
        let parts = path.rsplit_once('/').and_then(|(before, id)| {
            Some((before.strip_suffix("/v1/secrets")?.to_owned(), id.to_ascii_lowercase()))
        });
        match parts.filter(|(_, id)| is_uuid(id)) {
            Some((prefix, id)) => Ok(Reference { at: url.with_path(prefix), id }),
            None => no("the secret_ref is no reference to a secret: its path does not end with \
                        /v1/secrets/UUID"),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    #[test]
    fn both_forms_and_a_slash_are_understood() {
        let at = Endpoint::parse("https://kms:9311/key-manager").expect("it is plain");
        for tail in ["", "/", "/payload", "/payload/"] {
            let text = format!("https://kms:9311/key-manager/v1/secrets/{ID}{tail}");
            let reference = Reference::parse(&text).expect("it is a reference");
            assert_eq!(reference, Reference { at: at.clone(), id: ID.to_owned() }, "{text}");
        }
        let upper = format!("https://kms/v1/secrets/{}", ID.to_uppercase());
        assert_eq!(Reference::parse(&upper).expect("it is a reference").id, ID);
    }

    #[test]
    fn whatever_is_no_plain_reference_is_refused() {
        for tail in [
            "",
            "/",
            "//",
            "?x",
            "#x",
            ";x",
            "%2f",
            "%2e%2e",
            "/..",
            "/../",
            "/./payload",
            "/payload/payload",
            "//payload",
            "/acl",
            "/payload?x=y",
            "/payload#",
            "\\..",
            " ",
            "\u{2025}",
            "/%70ayload",
        ] {
            let text = format!("https://kms/v1/secrets/{ID}{tail}");
            let is_plain = matches!(tail, "" | "/");
            assert_eq!(Reference::parse(&text).is_ok(), is_plain, "{text}");
        }
        for text in [
            "",
            "x",
            "https://",
            "https:///v1/secrets/ID",
            "https:kms/v1/secrets/ID",
            "//kms/v1/secrets/ID",
            "ftp://kms/v1/secrets/ID",
            "https://user@kms/v1/secrets/ID",
            "https://user:pw@kms/v1/secrets/ID",
            "https://kms:/v1/secrets/ID",
            "https://kms:+9311/v1/secrets/ID",
            "https://kms:0443/v1/secrets/ID",
            "https://kms:65536/v1/secrets/ID",
            "https://kms./v1/secrets/ID",
            "https://k\u{43c}s/v1/secrets/ID",
            "https://[::1/v1/secrets/ID",
            "https://[::1%25eth0]/v1/secrets/ID",
            "https://[::1]x/v1/secrets/ID",
            "https://kms/v1/secrets/ID/../ID",
            "https://kms/v1/../v1/secrets/ID",
            "https://kms/v1//secrets/ID",
            "https://kms/v1/secrets",
            "https://kms/v1/containers/ID",
            "https://kms/v1/secrets/0f8fad5bd9cb469fa16570867728950e",
            "https://kms/v1/secrets/{0f8fad5b-d9cb-469f-a165-70867728950e}",
        ] {
            let text = text.replace("ID", ID);
            let why = Reference::parse(&text).map_err(|why| why.0);
            let why = why.expect_err(&text);
            assert!(why.contains("credentials") && !why.contains("pw"), "{why}");
        }
    }
}
