//! The text of a configuration file, as Python's configparser reads it: sections of keys.
//!
//! A parser of our own, since a value that turns out to be no good is told with its line.

/// Its keys count in every section.
const EVERYWHERE: &str = "DEFAULT";

/// A key and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In lower case.
    pub(super) key: String,
    pub(super) value: String,
    /// From 1.
    pub(super) line: usize,
}

/// What is to be said of a line, the first being 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The entries of one section, and then those of `[DEFAULT]`; and the sections that are neither.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) entries: Vec<Entry>,
    pub(super) strangers: Vec<Remark>,
}

/// Reads a file's text for the keys of `section`.
pub(super) fn parse(text: &str, section: &str) -> Result<Parsed, Remark> {
    let mut parsed = Parsed { entries: Vec::new(), strangers: Vec::new() };
    let mut defaults = Vec::new();
    let mut current = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let remark = |text: String| Remark { line: number, text };
        match Line::read(line).map_err(|why| remark(why.to_owned()))? {
            Line::Empty => {}
            Line::Section(name) => {
                if name != section && name != EVERYWHERE {
                    parsed.strangers.push(remark(format!("there is no section [{name}] here")));
                }
                current = Some(name);
            }
            Line::Entry(key, value) => {
                let entries = match current {
                    None => return Err(remark("a key before the first [section]".into())),
                    Some(name) if name == section => &mut parsed.entries,
                    Some(EVERYWHERE) => &mut defaults,
                    Some(_) => continue,
                };
                if entries.iter().any(|entry| entry.key == key) {
                    return Err(remark(format!("{key} stands here a second time")));
                }
                entries.push(Entry { key, value, line: number });
            }
        }
    }
    parsed.entries.append(&mut defaults);
    Ok(parsed)
}

enum Line<'a> {
    Empty,
    Section(&'a str),
    Entry(String, String),
}

impl Line<'_> {
    fn read(line: &str) -> Result<Line<'_>, &'static str> {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return Ok(Line::Empty);
        }
        if line.starts_with(char::is_whitespace) {
            return Err("an indented line; no value goes on over the end of a line");
        }
        if let Some(rest) = text.strip_prefix('[') {
            return rest.strip_suffix(']').map(Line::Section).ok_or("a [section] without its end");
        }
        let (key, value) =
            text.split_once(['=', ':']).ok_or("neither [section] nor KEY = VALUE")?;
        match key.trim().to_lowercase() {
            key if key.is_empty() => Err("a value without a key"),
            // configparser's way to write one.
            key => Ok(Line::Entry(key, value.trim().replace("%%", "%"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, usize)> {
        let entries = parse(text, "server").expect("it is well-formed").entries;
        entries.into_iter().map(|entry| (entry.key, entry.value, entry.line)).collect()
    }

    #[test]
    fn keys_are_read_as_python_reads_them() {
        let text =
            "# c\n[DEFAULT]\nlog_level: DEBUG\n\n[server]\nNode_ID = a b # c\nurl=x://u:p%%40@h\n";
        let want =
            [("node_id", "a b # c", 6), ("url", "x://u:p%40@h", 7), ("log_level", "DEBUG", 3)];
        let want = want.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line));
        assert_eq!(read(text), want);
        assert_eq!(read(""), []);
    }

    #[test]
    fn a_section_of_others_is_told_and_left_out() {
        let parsed = parse("[client]\na = 1\n[server]\nb = 2\n", "server").expect("well-formed");
        assert_eq!(parsed.entries.len(), 1);
        assert_eq!(parsed.strangers[0].line, 1);
    }

    #[test]
    fn a_malformed_line_is_told_by_its_number() {
        for (text, line) in [
            ("a = 1", 1),
            ("[server]\nword", 2),
            ("[server]\na = 1\n  2", 3),
            ("[server\n", 1),
            ("[server]\n= 1", 2),
            ("[server]\na = 1\na = 2", 3),
        ] {
            assert_eq!(parse(text, "server").map_err(|why| why.line), Err(line), "{text:?}");
        }
    }
}
