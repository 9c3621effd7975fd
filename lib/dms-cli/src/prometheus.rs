//! Numbers in Prometheus' text format.

use std::fmt::{Display, Write};

/// A label's name and value.
pub type Label<'a> = (&'static str, &'a str);

/// A metric and its samples.
pub struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// What stands between name and value, and the value.
    samples: Vec<(String, String)>,
}

impl Family {
    /// Without samples. `kind` is `gauge`, `counter` or `summary`.
    pub fn new(name: &'static str, kind: &'static str, help: &'static str) -> Family {
        Family { name, kind, help, samples: Vec::new() }
    }

    /// A sample; `suffix` goes behind the name.
    pub fn add(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.samples.push((format!("{suffix}{}", written(labels)), value.to_string()));
    }

    /// How many, and how long they took together, in milliseconds; shown in seconds.
    pub fn add_summary(&mut self, labels: &[Label<'_>], count: i64, millis: i64) {
        let seconds = format!("{}.{:03}", millis / 1000, millis.rem_euclid(1000));
        self.add("_sum", labels, seconds);
        self.add("_count", labels, count);
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let Family { name, kind, help, samples } = self;
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (behind_name, value) in samples {
            // A string takes all.
            let _ = writeln!(text, "{name}{behind_name} {value}");
        }
        text
    }
}

/// `{name="value",...}`, with the escapes of the format.
fn written(labels: &[Label<'_>]) -> String {
    let escaped =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> =
        (labels.iter()).map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_seconds_are_decimal() {
        let mut family = Family::new("x", "summary", "What it is.");
        family.add_summary(&[("target", "a\"b\\c\n")], 2, 1005);
        let want = "# HELP x What it is.\n# TYPE x summary\n\
                    x_sum{target=\"a\\\"b\\\\c\\n\"} 1.005\nx_count{target=\"a\\\"b\\\\c\\n\"} 2\n";
        assert_eq!(family.text(), want);
    }
}
