//! Names that come from outside and end in file names, keys and command lines: checked once, here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Checks that `text` is a usable name: there, not too long, without control characters.
fn check_name(what: &str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid(format!("{what} is empty")));
    }
    if text.len() > limit {
        return Err(Invalid(format!("{what} is longer than {limit} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid(format!("{what} contains a control character")));
    }
    // A database may take it for the same without them.
    if text.ends_with(' ') {
        return Err(Invalid(format!("{what} ends with a space")));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(&text)?;
                Ok($name(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A backup target. It names lock files, PID files and directories, so it cannot leave its
    /// directory (`/`, `..`), hide (a leading dot) or outgrow a file name (`target.<id>.lock`).
    TargetId, |text| {
        check_name("backup_target.id", text, 255 - "target..lock".len())?;
        if text.contains('/') {
            return Err(Invalid::new("backup_target.id contains \"/\""));
        }
        if text.starts_with('.') {
            return Err(Invalid::new("backup_target.id begins with a dot"));
        }
        Ok(())
    }
}

name_type! {
    /// A node, as in the queue name `dms.<node>`.
    Host, |text| {
        check_name("host", text, 255 - "dms.".len())?;
        if text.contains('/') {
            return Err(Invalid::new("host contains \"/\""));
        }
        Ok(())
    }
}

name_type! {
    /// The id of a request and of the operation that carries it out (an AMQP correlation id).
    OperationId, |text| check_name("request_id", text, 255)
}

/// The longest mount path in bytes: what the journal's column holds.
pub const MAX_PATH: usize = 512;

name_type! {
    /// Where a target is mounted: absolute, and spelled in the one way that mountinfo spells it
    /// too (no `..`, `.`, `//`, trailing slash).
    MountPath, |text| {
        let what = "filesystem_export_mount_path";
        check_name(what, text, MAX_PATH)?;
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Invalid(format!("{what} is not absolute")));
        };
        for part in rest.split('/') {
            match part {
                ".." => return Err(Invalid(format!("{what} contains \"..\""))),
                "" | "." => return Err(Invalid(format!("{what} contains an empty part or \".\""))),
                _ if part.len() > 255 => return Err(Invalid(format!("{what} has a part of over 255 bytes"))),
                _ => {}
            }
        }
        Ok(())
    }
}

impl MountPath {
    /// `<base>/<target id>`: where a request without a path is mounted.
    ///
    /// # Errors
    /// If the base is no path that a mount could be below.
    pub fn default_for(base: &str, target: &TargetId) -> Result<Self, Invalid> {
        MountPath::try_from(format!("{}/{target}", base.trim_end_matches('/')))
    }
}

/// What kind of storage a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// A bucket, mounted by a FUSE program.
    S3,
    /// An export, mounted by mount(8).
    Nfs,
    /// A pool, imported.
    Zfs,
}

impl TargetType {
    /// The word on the wire, or `None` for a word that is no type.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "s3" => Some(TargetType::S3),
            "nfs" => Some(TargetType::Nfs),
            "zfs" => Some(TargetType::Zfs),
            _ => None,
        }
    }

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            TargetType::S3 => "s3",
            TargetType::Nfs => "nfs",
            TargetType::Zfs => "zfs",
        }
    }

    /// As messages write it: `S3 target mounted successfully`.
    pub fn title(self) -> &'static str {
        match self {
            TargetType::S3 => "S3",
            TargetType::Nfs => "NFS",
            TargetType::Zfs => "ZFS",
        }
    }
}

impl fmt::Display for TargetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<TargetId, Invalid> {
        text.to_owned().try_into()
    }

    fn path(text: &str) -> Result<MountPath, Invalid> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_target_id_cannot_leave_its_directory() {
        for bad in ["", "a/b", "..", ".", ".hidden", "../x", "a ", "a\0", "a\nb", &"x".repeat(244)]
        {
            assert!(target(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["target-123", "T1", "a b", "ümläut", "-x", &"x".repeat(243)] {
            assert!(target(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_mount_path_has_one_spelling() {
        for bad in ["", "a/b", "/", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\nb", "/.."] {
            assert!(path(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(path("/var/lib/x y").is_ok());
        assert!(path(&format!("/{}", "x/".repeat(300))).is_err());
    }

    #[test]
    fn the_default_path_is_the_base_and_the_id() {
        let id = target("t1").expect("a valid id");
        let default = MountPath::default_for("/srv/m/", &id).expect("a valid base");
        assert_eq!(default.as_str(), "/srv/m/t1");
    }
}
