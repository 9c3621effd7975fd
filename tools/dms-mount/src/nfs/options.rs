//! The options of a request: those that say how to speak to a server, and nothing else.
//!
//! A list of what is allowed, since nobody knows all that is dangerous: mount(8) knows options that
//! bind, move or remount other file systems, run helpers or let users unmount, and each version
//! knows more. An option counts only in the one spelling that stands here.

use std::net::IpAddr;

use dms_wire::Invalid;

use crate::settings;

/// The journal keeps a text of this length, and `reconcile` mounts with what it kept.
const MAX_OPTIONS: usize = 1024;

/// Whatever a request says: what lies in a backup target gives nobody rights.
const ALWAYS: &str = "nosuid,nodev";

/// And is not run, unless the operator says that it may be.
const BY_DEFAULT: &str = "noexec";

/// Without a value. Not `bg`: it would mount later, by itself, when nobody knows of it.
#[rustfmt::skip]
const FLAGS: [&str; 51] = [
    "rw", "ro", "sync", "async", "atime", "noatime", "diratime", "nodiratime", "relatime",
    "norelatime", "strictatime", "nosuid", "nodev", "noexec", "_netdev", "hard", "soft", "softerr",
    "softreval", "nosoftreval", "intr", "nointr", "fg", "lock", "nolock", "ac", "noac", "cto",
    "nocto", "acl", "noacl", "rdirplus", "nordirplus", "resvport", "noresvport", "sharecache",
    "nosharecache", "fsc", "nofsc", "migration", "nomigration", "tcp", "tcp6", "udp", "udp6",
    "rdma", "v3", "v4", "v4.0", "v4.1", "v4.2",
];

/// For fstab(5) and for mount(8) by itself: they say nothing to a server, and are left out.
const EMPTY: [&str; 1] = ["defaults"];

const VERSIONS: &[&str] = &["3", "4", "4.0", "4.1", "4.2"];

/// With a value: which one.
const VALUES: [(&str, Value); 24] = [
    ("nfsvers", Value::Word(VERSIONS)),
    ("vers", Value::Word(VERSIONS)),
    ("minorversion", Value::Word(&["0", "1", "2"])),
    ("mountvers", Value::Word(&["1", "2", "3"])),
    ("proto", Value::Word(&["tcp", "tcp6", "udp", "udp6", "rdma", "rdma6"])),
    ("mountproto", Value::Word(&["tcp", "tcp6", "udp", "udp6"])),
    ("port", Value::Number(65_535)),
    ("mountport", Value::Number(65_535)),
    ("rsize", Value::Number(u32::MAX)),
    ("wsize", Value::Number(u32::MAX)),
    ("timeo", Value::Number(u32::MAX)),
    ("retrans", Value::Number(u32::MAX)),
    ("retry", Value::Number(u32::MAX)),
    ("acregmin", Value::Number(u32::MAX)),
    ("acregmax", Value::Number(u32::MAX)),
    ("acdirmin", Value::Number(u32::MAX)),
    ("acdirmax", Value::Number(u32::MAX)),
    ("actimeo", Value::Number(u32::MAX)),
    ("nconnect", Value::Number(16)),
    ("sec", Value::Words(&["sys", "none", "krb5", "krb5i", "krb5p"])),
    ("xprtsec", Value::Word(&["none", "tls", "mtls"])),
    ("local_lock", Value::Word(&["all", "flock", "posix", "none"])),
    ("lookupcache", Value::Word(&["all", "none", "pos", "positive"])),
    ("clientaddr", Value::Address),
];

#[derive(Clone, Copy)]
enum Value {
    /// Up to this.
    Number(u32),
    Word(&'static [&'static str]),
    /// Several, with colons between.
    Words(&'static [&'static str]),
    Address,
}

impl Value {
    fn allows(self, text: &str) -> bool {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Value::Number(most) => digits && text.parse::<u32>().is_ok_and(|n| n <= most),
            Value::Word(words) => words.contains(&text),
            Value::Words(words) => text.split(':').all(|word| words.contains(&word)),
            Value::Address => text.parse::<IpAddr>().is_ok(),
        }
    }
}

/// Options for mount(8) that were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Reads a list with commas between. Empty parts, and spaces around an option, say nothing.
    pub(crate) fn parse(text: &str) -> Result<Options, Invalid> {
        const FIELD: &str = "backup_target.nfs_mount_opts";
        if text.len() > MAX_OPTIONS {
            return Err(Invalid(format!("{FIELD} is longer than {MAX_OPTIONS} bytes")));
        }
        let mut options = Vec::new();
        for option in text.split(',').map(|part| part.trim_matches(' ')) {
            if option.is_empty() || EMPTY.contains(&option) {
                continue;
            }
            if !is_allowed(option) {
                let shown: String =
                    option.chars().take(40).flat_map(char::escape_default).collect();
                return Err(Invalid(format!("{FIELD}: option {shown} is not allowed")));
            }
            options.push(option.to_owned());
        }
        Ok(Options(options))
    }

    /// As mount(8) gets them: of two that contradict each other the last counts, so ours come last.
    pub(crate) fn to_list(&self, settings: &settings::Nfs) -> String {
        let mut options: Vec<&str> = self.0.iter().map(String::as_str).collect();
        options.push(ALWAYS);
        if !settings.may_exec {
            options.push(BY_DEFAULT);
        }
        options.join(",")
    }
}

fn is_allowed(option: &str) -> bool {
    match option.split_once('=') {
        None => FLAGS.contains(&option),
        Some((name, text)) => {
            VALUES.iter().any(|(known, value)| *known == name && value.allows(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<String, String> {
        let list = |options: Options| options.to_list(&settings::Nfs::default());
        Options::parse(text).map(list).map_err(|why| why.0)
    }

    #[test]
    fn what_the_documents_show_is_allowed_and_ours_come_last() {
        for (text, want) in [
            ("", "nosuid,nodev,noexec"),
            ("defaults", "nosuid,nodev,noexec"),
            ("rw,sync,hard", "rw,sync,hard,nosuid,nodev,noexec"),
            (
                "rw,sync,hard,intr,nfsvers=4,timeo=600,retrans=2",
                "rw,sync,hard,intr,nfsvers=4,timeo=600,retrans=2,nosuid,nodev,noexec",
            ),
            ("nolock,soft,timeo=600", "nolock,soft,timeo=600,nosuid,nodev,noexec"),
            (" rw , vers=4.1 ,,", "rw,vers=4.1,nosuid,nodev,noexec"),
            (
                "vers=4,minorversion=2,proto=tcp6,sec=krb5p:krb5i,nconnect=8,clientaddr=::1",
                "vers=4,minorversion=2,proto=tcp6,sec=krb5p:krb5i,nconnect=8,clientaddr=::1,\
                 nosuid,nodev,noexec",
            ),
        ] {
            assert_eq!(list(text).as_deref(), Ok(want), "{text}");
        }
        for flag in FLAGS {
            assert_eq!(list(flag), Ok(format!("{flag},{ALWAYS},{BY_DEFAULT}")));
        }
    }

    #[test]
    fn only_the_operator_lets_programs_be_run() {
        let settings = settings::Nfs { may_exec: true, ..settings::Nfs::default() };
        let list = |text: &str| Options::parse(text).map(|options| options.to_list(&settings));
        assert_eq!(list("rw").as_deref(), Ok("rw,nosuid,nodev"));
        assert_eq!(list("noexec").as_deref(), Ok("noexec,nosuid,nodev"));
        assert!(list("exec").is_err());
    }

    #[test]
    fn a_value_is_of_its_kind() {
        for bad in [
            "timeo",
            "timeo=",
            "timeo=x",
            "timeo=-1",
            "timeo=+1",
            "timeo=1.5",
            "timeo=1 ro",
            "timeo=4294967296",
            "port=65536",
            "nconnect=17",
            "vers=2",
            "vers=4.3",
            "nfsvers=",
            "v2",
            "proto=sctp",
            "sec=",
            "sec=sys:",
            "sec=root",
            "rw=1",
            "local_lock=some",
            "clientaddr=host",
            "soft=1",
            "=",
            "=rw",
            "timeo==1",
        ] {
            assert!(list(bad).is_err(), "{bad:?} was allowed");
        }
        let long = "rw,".repeat(342);
        assert!(list(&long).is_err_and(|why| why.contains("longer than 1024")));
    }

    #[test]
    fn the_refusal_names_the_option_and_quotes_little_of_it() {
        let why = list("rw,suid").expect_err("it gives rights");
        assert_eq!(why, "backup_target.nfs_mount_opts: option suid is not allowed");
        let why = list(&format!("x\n{}", "y".repeat(99))).expect_err("it is no option");
        assert!(why.contains("option x\\ny") && why.len() < 120, "{why}");
    }
}
