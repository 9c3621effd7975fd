//! The URL of a service, read strictly: a spelling that two programs could read differently is
//! none, so that what is compared is what is connected to.

use std::fmt;
use std::net::Ipv6Addr;

/// `scheme://host[:port][/path]`, and nothing else: no user, no query, no fragment, no encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    is_tls: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
    /// Empty, or one that begins with a slash and does not end with one.
    path: String,
}

impl Endpoint {
    /// Reads a URL. The error is the reason, and quotes nothing: it could be a password.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("it is neither http nor https"),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => number(digits).ok_or("its port is no number")?,
            None if is_tls => 443,
            None => 80,
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() && !path[1..].split('/').all(is_plain_part) {
            return Err("its path has an empty part, a part of dots, or an odd character");
        }
        Ok(Endpoint { is_tls, host: host_name(host)?, port, path: path.to_owned() })
    }

    /// Without TLS whoever is on the way can read all of it.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The path; empty, or with a slash before and none behind it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same place with another path.
    pub(super) fn with_path(self, path: impl Into<String>) -> Self {
        Endpoint { path: path.into(), ..self }
    }

    /// The same place without this last part of its path, if it has it.
    pub(super) fn without(self, last: &str) -> Self {
        let path = self.path.strip_suffix(last).unwrap_or(&self.path).to_owned();
        self.with_path(path)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { is_tls, host, port, path } = self;
        write!(f, "{}://{host}:{port}{path}", if *is_tls { "https" } else { "http" })
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if !authority.starts_with('[') {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    }
    let end = authority.find(']').ok_or("its host is no host name")?;
    match authority.split_at(end + 1) {
        (host, "") => Ok((host, None)),
        (host, port) => Ok((host, Some(port.strip_prefix(':').ok_or("its port is no number")?))),
    }
}

fn number(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

fn host_name(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "its host is no IPv6 address")?;
        return Ok(format!("[{address}]"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_label = |label: &str| !label.is_empty() && label.chars().all(plain);
    if host.split('.').all(is_label) {
        Ok(host.to_ascii_lowercase())
    } else {
        Err("its host is no host name")
    }
}

fn is_plain_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    !part.is_empty() && part.chars().any(|c| c != '.') && part.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_place_are_equal() {
        for (one, other) in [
            ("https://kms", "HTTPS://KMS:443/"),
            ("http://kms/key-manager", "http://kms:80/key-manager/"),
            ("https://[::1]:9311", "https://[0:0:0:0:0:0:0:1]:9311"),
        ] {
            assert_eq!(Endpoint::parse(one), Endpoint::parse(other), "{one} {other}");
            assert!(Endpoint::parse(one).is_ok(), "{one}");
        }
        let endpoint = Endpoint::parse("https://kms:9311/key-manager/v1").expect("it is plain");
        assert_eq!(endpoint.without("/v1").to_string(), "https://kms:9311/key-manager");
    }

    #[test]
    fn other_places_are_other_places() {
        let kms = Endpoint::parse("https://kms:9311/a").expect("it is plain");
        for other in [
            "http://kms:9311/a",
            "https://kms/a",
            "https://kms:9311",
            "https://kms:9311/A",
            "https://kms:9311/a/b",
            "https://kms.example:9311/a",
        ] {
            assert_ne!(Endpoint::parse(other).as_ref(), Ok(&kms), "{other}");
        }
    }
}
