//! An S3 program, as data: how it is called, and how its mount is known.
//!
//! A profile is a text of lines `KEY = VALUE`. In a value `{NAME}` stands for what a mount has of
//! that name, and a line with a name that it has not is left out; `{NAME|TEXT}` stands for TEXT then.
//! A key never gets onto a command line, which any user can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dms_wire::Secret;

/// The profiles that need no file.
const BUILT_IN: [(&str, &str); 2] = [
    ("s3fs", include_str!("../../profiles/s3fs.conf")),
    ("s3vaultfuse", include_str!("../../profiles/s3vaultfuse.conf")),
];

/// Names whose values are for the daemon's environment only.
const SECRETS: [&str; 2] = ["access_key", "secret_key"];

/// Where programs are looked for, and daemons look: not where our caller would.
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a mount has, by name. Some of it is secret.
pub(crate) type Values = BTreeMap<&'static str, Secret>;

/// An S3 program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    /// For people: in messages and logs.
    pub(crate) name: String,
    /// Names or paths, the first that is there counts.
    programs: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    fstype: String,
    source: String,
}

impl Profile {
    /// One of our own, by its name.
    pub(crate) fn built_in(name: &str) -> Option<Profile> {
        let (name, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        // A test reads them all.
        Profile::parse(name, text).ok()
    }

    /// The names of our own.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a profile. The error names the line.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Profile, String> {
        let mut profile = Profile { name: name.to_owned(), ..Profile::default() };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            profile.take(line).map_err(|why| format!("line {number}: {why}"))?;
        }
        for (what, is_missing) in [
            ("program", profile.programs.is_empty()),
            ("fstype", profile.fstype.is_empty()),
            ("source", profile.source.is_empty()),
        ] {
            if is_missing {
                return Err(format!("there is no {what}"));
            }
        }
        Ok(profile)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once('=').ok_or("it is not KEY = VALUE")?;
        let (key, value) = (key.trim(), value.trim().to_owned());
        check_names(&value, key == "environment")?;
        match key {
            "program" => self.programs.push(value),
            "argument" => self.arguments.push(value),
            "environment" => {
                let (name, value) = value.split_once('=').ok_or("it is not NAME=VALUE")?;
                self.environment.push((name.trim().to_owned(), value.to_owned()));
            }
            "fstype" => self.fstype = value,
            "source" => self.source = value,
            _ => return Err(format!("{key} is no key of a profile")),
        }
        Ok(())
    }

    /// Where the program is, if it is installed.
    pub(crate) fn find_program(&self) -> Option<PathBuf> {
        self.programs.iter().find_map(|program| find_in_search_path(program))
    }

    /// The program's name, for messages.
    pub(crate) fn program_name(&self) -> &str {
        let program = self.programs.first().map_or("", String::as_str);
        program.rsplit('/').next().unwrap_or(program)
    }

    /// Its command line for a mount that has these values.
    pub(crate) fn arguments(&self, values: &Values) -> Vec<String> {
        self.arguments.iter().filter_map(|text| fill(text, values)).collect()
    }

    /// Its whole environment for such a mount.
    pub(crate) fn environment(&self, values: &Values) -> Vec<(String, Secret)> {
        let filled = |(name, text): &(String, String)| {
            Some((name.clone(), Secret::new(fill(text, values)?)))
        };
        self.environment.iter().filter_map(filled).collect()
    }

    /// Whether it asks for this value.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let environment = self.environment.iter().map(|(_, text)| text);
        let wanted = [format!("{{{name}}}"), format!("{{{name}|")];
        (self.arguments.iter().chain(environment))
            .any(|text| wanted.iter().any(|wanted| text.contains(wanted)))
    }

    /// What stands before this value on its command line or in its environment, where nothing stands
    /// behind it: so the value can be read there.
    pub(crate) fn words_before(&self, name: &str) -> Vec<String> {
        let ends = [format!("{{{name}}}"), format!("{{{name}|}}")];
        let before = |text: &String| {
            let found = ends.iter().find_map(|end| text.strip_suffix(end.as_str()));
            found.map(str::to_owned)
        };
        let environment = self.environment.iter();
        let environment =
            environment.filter_map(|(key, text)| Some(format!("{key}={}", before(text)?)));
        let arguments = self.arguments.iter().filter_map(before);
        // Before one that stands alone there is nothing to find it by.
        let is_plain = |word: &String| !word.is_empty() && !word.contains('{');
        arguments.chain(environment).filter(is_plain).collect()
    }

    /// File system type and source of such a mount in mountinfo.
    pub(crate) fn mounted_as(&self, values: &Values) -> (String, String) {
        let filled = |text: &str| fill(text, values).unwrap_or_default();
        (filled(&self.fstype), filled(&self.source))
    }
}

/// Where a program is, or one with this path.
pub(crate) fn find_in_search_path(program: &str) -> Option<PathBuf> {
    SEARCH_PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// The names between braces are known to be secret, or not, where they stand.
fn check_names(text: &str, may_be_secret: bool) -> Result<(), String> {
    for part in text.split('{').skip(1) {
        let name = part.split(['|', '}']).next().unwrap_or_default();
        if !part.contains(['|', '}']) {
            return Err("a { has no }".into());
        }
        if SECRETS.contains(&name) && !may_be_secret {
            return Err(format!("{name} may stand in the environment only"));
        }
    }
    Ok(())
}

/// `text` with its names replaced; `None`: a name has no value.
fn fill(text: &str, values: &Values) -> Option<String> {
    let Some((before, rest)) = text.split_once('{') else { return Some(text.to_owned()) };
    let (name, behind) = closing(rest)?;
    let value = match name.split_once('|') {
        Some((name, default)) => match values.get(name) {
            Some(value) => value.reveal().to_owned(),
            None => fill(default, values)?,
        },
        None => values.get(name)?.reveal().to_owned(),
    };
    Some(format!("{before}{value}{}", fill(behind, values)?))
}

/// What stands before the brace that closes, and what behind it.
fn closing(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&'static str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| (*name, Secret::new(*value))).collect()
    }

    #[test]
    fn our_own_profiles_can_be_read_and_ask_for_the_keys() {
        for (name, text) in BUILT_IN {
            let profile = Profile::parse(name, text).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(SECRETS.iter().all(|secret| profile.wants(secret)), "{name}");
            assert!(profile.wants("mount_path"), "{name}");
        }
        assert!(Profile::built_in("minio").is_none());
    }

    #[test]
    fn a_line_without_its_value_is_left_out_unless_it_says_what_else() {
        let values = values(&[("bucket", "b"), ("flag", "")]);
        for (text, want) in [
            ("-o{bucket}", Some("-ob")),
            ("{region}", None),
            ("{region|}", Some("")),
            ("{region|us}-1", Some("us-1")),
            ("{region|{bucket}}", Some("b")),
            ("--on{flag}", Some("--on")),
            ("--on{other}", None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(fill(text, &values).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn what_a_program_was_told_is_found_behind_its_word() {
        let words = |profile: &str, name| Profile::built_in(profile).map(|p| p.words_before(name));
        assert_eq!(words("s3fs", "endpoint"), Some(vec!["-ourl=".to_owned()]));
        assert_eq!(words("s3fs", "bucket"), Some(Vec::new()));
        let told = Some(vec!["vault_s3_endpoint_url=".to_owned()]);
        assert_eq!(words("s3vaultfuse", "endpoint"), told);
    }

    #[test]
    fn a_value_is_not_read_as_a_name() {
        let values = values(&[("bucket", "{secret_key}"), ("secret_key", "SK")]);
        assert_eq!(fill("{bucket}", &values).as_deref(), Some("{secret_key}"));
    }

    #[test]
    fn a_bad_profile_names_its_line() {
        for (text, want) in [
            ("program = x\nargument = {secret_key}", "line 2: secret_key may stand in"),
            ("program = x\n\nnonsense", "line 3: it is not KEY"),
            ("colour = red", "line 1: colour is no key"),
            ("argument = {x", "line 1: a { has no }"),
            ("environment = X", "line 1: it is not NAME=VALUE"),
            ("program = x", "there is no fstype"),
        ] {
            let why = Profile::parse("x", text).expect_err(text);
            assert!(why.starts_with(want), "{text:?}: {why}");
        }
    }
}
