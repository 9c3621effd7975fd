//! An export: `HOST:/PATH`, as a request names it and as the kernel shows it.

use std::net::Ipv6Addr;

use dms_wire::Invalid;

/// As long as the protocol lets a path be; the journal keeps it whole.
const MAX_EXPORT: usize = 1024;

/// A server, and a path on it. Nothing in it can be taken for an option, a tag or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Export {
    /// As it was written: what mount(8) gets, and messages show.
    text: String,
    host: Host,
    /// Without the slashes at its end.
    path: String,
}

/// An address of six has many spellings, a name two.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    V6(Ipv6Addr, Option<String>),
}

impl Export {
    /// Reads `HOST:/PATH` or `[ADDRESS]:/PATH`.
    pub(crate) fn parse(text: &str) -> Result<Export, Invalid> {
        let refuse = |why: &str| {
            let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
            Invalid(format!("backup_target.filesystem_export {shown} {why}"))
        };
        if text.len() > MAX_EXPORT {
            return Err(refuse("is longer than 1024 bytes"));
        }
        if text.starts_with('-') {
            return Err(refuse("begins with a dash"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("contains a control character"));
        }
        let (host, path) = split(text).ok_or_else(|| refuse("is not HOST:/PATH"))?;
        let host = Host::parse(host).ok_or_else(|| refuse("has no host name or address"))?;
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(refuse("is not HOST:/PATH"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(refuse("has .. in its path"));
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Export { text: text.to_owned(), host, path })
    }

    /// Whether both are the same export, by whatever spelling.
    pub(crate) fn is_same(&self, other: &Export) -> bool {
        (&self.host, &self.path) == (&other.host, &other.path)
    }

    /// Whether the kernel's word for what it has mounted is this export.
    pub(crate) fn is_source(&self, source: &str) -> bool {
        Export::parse(source).is_ok_and(|other| self.is_same(&other))
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// At the colon behind the host: the first one that is not in brackets.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('[') {
        let end = text.find(']')?;
        return Some((&text[..=end], text[end + 1..].strip_prefix(':')?));
    }
    text.split_once(':')
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        if let Some(address) = text.strip_prefix('[') {
            let address = address.strip_suffix(']')?;
            let (address, zone) = match address.split_once('%') {
                Some((address, zone)) => (address, Some(zone)),
                None => (address, None),
            };
            // An interface: its own name, no option.
            let is_zone = |zone: &str| !zone.is_empty() && is_name(zone);
            if zone.is_some_and(|zone| !is_zone(zone)) {
                return None;
            }
            return Some(Host::V6(address.parse().ok()?, zone.map(str::to_owned)));
        }
        let is_host = !text.starts_with(['.', '-']) && !text.is_empty() && is_name(text);
        is_host.then(|| Host::Name(text.to_ascii_lowercase()))
    }
}

/// Of a host or an interface.
fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_a_host_and_an_absolute_path() {
        for good in [
            "192.168.1.100:/export",
            "nas-1.example.com:/",
            "[2001:db8::1]:/backups",
            "[fe80::1%eth0]:/b",
            "h:/with space, comma",
            "h:/a:b",
        ] {
            assert_eq!(Export::parse(good).map(|export| export.text), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "-o",
            "-obind:/x",
            "--bind:/x",
            "/etc",
            "host",
            "host:",
            "host:path",
            "host:-o",
            ":/x",
            "[::1]/x",
            "[::1:/x",
            "[]:/x",
            "[::1%]:/x",
            "[::1%a,b]:/x",
            "::1:/x",
            "[host]:/x",
            "nfs://host/x",
            "LABEL=a:/x",
            "a b:/x",
            "a,b:/x",
            "u@h:/x",
            "h:/a/../../etc",
            "h:/a\nb",
            ".h:/x",
        ] {
            assert!(Export::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Export::parse(&format!("h:/{}", "x".repeat(1024))).is_err());
    }

    #[test]
    fn an_export_is_known_by_its_other_spellings() {
        let same =
            |one: &str, other: &str| Export::parse(one).is_ok_and(|export| export.is_source(other));
        assert!(same("h:/e/", "h:/e") && same("h:/", "h:/") && same("NAS:/e", "nas:/e//"));
        assert!(same("[2001:db8:0:0::1]:/e", "[2001:db8::1]:/e/"));
        assert!(same("[fe80::1%eth0]:/e", "[fe80::1%eth0]:/e"));
        assert!(!same("[fe80::1%eth0]:/e", "[fe80::1%eth1]:/e"));
        assert!(!same("h:/e", "h:/e2") && !same("h:/e", "g:/e") && !same("h:/E", "h:/e"));
        assert!(!same("h:/e", "/dev/sda1") && !same("h:/e", "dms:t1/bucket"));
    }
}
