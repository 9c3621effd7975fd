//! Rows for people, aligned; rows for programs, one JSON object a line.

use std::io::{self, ErrorKind, Write};

use serde_json::{Map, Value};

/// Named columns and their rows.
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// Without rows.
    pub fn new(columns: &'static [&'static str]) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row: a value for each column.
    pub fn add(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    /// One JSON object a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_json(&self, output: &mut impl Write) -> io::Result<()> {
        for row in &self.rows {
            let names = self.columns.iter().map(|name| (*name).to_owned());
            let object: Map<String, Value> = names.zip(row.iter().cloned()).collect();
            serde_json::to_writer(&mut *output, &object)?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }

    /// A heading, and every column as wide as its widest value.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_text(&self, output: &mut impl Write) -> io::Result<()> {
        let heading = self.columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>());
        let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            let text = cells.collect::<Vec<_>>().join("  ");
            writeln!(output, "{}", text.trim_end())?;
        }
        output.flush()
    }
}

/// A value as people read it; what could move their cursor is escaped.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => {
            let escape = |c: char| match c.is_control() {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            };
            text.chars().map(escape).collect()
        }
        other => other.to_string(),
    }
}

/// A closed pipe is a quiet end: `dms-ledger history | head`.
///
/// # Errors
/// Whatever else went wrong.
pub fn quiet_end(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table {
        let mut table = Table::new(&["target", "job", "mounted"]);
        table.add(vec![json!("t1"), json!(12345), json!(true)]);
        table.add(vec![json!("a\x1b[2J"), Value::Null, json!(false)]);
        table
    }

    #[test]
    fn a_table_is_aligned_and_cannot_write_to_the_terminal() {
        let mut text = Vec::new();
        table().write_text(&mut text).expect("a vector takes all");
        let want = "TARGET      JOB    MOUNTED\nt1          12345  yes\na\\u{1b}[2J  -      no\n";
        assert_eq!(String::from_utf8_lossy(&text), want);
    }

    #[test]
    fn json_lines_name_every_column() {
        let mut text = Vec::new();
        table().write_json(&mut text).expect("a vector takes all");
        let first = String::from_utf8_lossy(&text).lines().next().map(str::to_owned);
        assert_eq!(first.as_deref(), Some(r#"{"job":12345,"mounted":true,"target":"t1"}"#));
    }
}
