//! The file of a name: any name, a file name of its own.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The longest name that is written out. Behind it stand `.lock` and a level, or `.gate`.
const LONGEST: usize = 240;

/// How much of a longer one is kept, for people.
const KEPT: usize = 100;

/// How a name begins its file's name. Most names stand there as they are; what no file name may
/// have is written `%XX`, as is `%` itself. Of a name that is too long there is the beginning, and
/// behind `%~`, which nothing else is written as, a hash of the whole.
pub(crate) fn file_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let is_plain = match c {
            '/' | '%' => false,
            '.' => at > 0,
            c => !c.is_control(),
        };
        if is_plain {
            text.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // A string takes all.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    if text.len() <= LONGEST {
        return text;
    }
    text.truncate((0..=KEPT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default());
    let hash = Sha256::digest(name.as_bytes());
    text.push_str("%~");
    for byte in hash {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The name as people know it, as far as it stands in the file's name.
pub(crate) fn shown(file_name: &str) -> String {
    let mut bytes = Vec::with_capacity(file_name.len());
    let mut rest = file_name.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_plain_name_is_its_file_name() {
        for name in ["dms_mount_unmount", "node", "target.target-123", "a b", "ümläut", "x.lock.1"]
        {
            assert_eq!(file_name(name), name);
        }
    }

    #[test]
    fn any_name_is_a_file_name_and_no_two_are_one() {
        let long = "x".repeat(300);
        let names = [
            ".",
            "..",
            ".x",
            "x",
            "/",
            "a/b",
            "a%2Fb",
            "a%2fb",
            "%",
            "%%",
            "%25",
            "a\nb",
            "a\u{85}b",
            "a\0b",
            "-x",
            " ",
            "ü",
            &long,
            &long[1..],
            &format!("{long}ü"),
            &"/".repeat(80),
            &"/".repeat(81),
            &"ü".repeat(120),
            &"ü".repeat(121),
            &format!("{}y", &long[1..]),
        ];
        let mut seen = BTreeMap::new();
        for name in names {
            let file = file_name(name);
            assert!(file.len() <= LONGEST && !file.starts_with('.') && !file.contains(['/', '\0']));
            assert!(!file.chars().any(char::is_control), "{file:?}");
            assert_eq!(seen.insert(file.clone(), name), None, "{file}");
            if !file.contains("%~") {
                assert_eq!(shown(&file), name);
            }
        }
        // What a long one is written as is another's as little.
        let hashed = file_name(&long);
        assert_ne!(file_name(&hashed), hashed);
    }
}
