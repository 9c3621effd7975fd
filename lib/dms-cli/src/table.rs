//! Rows for people, aligned; rows for programs, one JSON object a line.

use std::io::{self, ErrorKind, IsTerminal, Write};

use rustix::termios::tcgetwinsize;
use serde_json::{Map, Value};

use crate::age::age_of;

/// A column: what it is called, and how people see it.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Age,
    State,
    Wide,
    Rest,
}

impl Column {
    /// A value as it is.
    pub const fn plain(name: &'static str) -> Column {
        Column { name, shape: Shape::Plain }
    }

    /// A moment: people see how long ago it was.
    pub const fn age(name: &'static str) -> Column {
        Column { name, shape: Shape::Age }
    }

    /// How something is: what is not well stands out on a terminal.
    pub const fn state(name: &'static str) -> Column {
        Column { name, shape: Shape::State }
    }

    /// For those who want it all.
    pub const fn wide(name: &'static str) -> Column {
        Column { name, shape: Shape::Wide }
    }

    /// The last one: a terminal cuts it at its edge.
    pub const fn rest(name: &'static str) -> Column {
        Column { name, shape: Shape::Rest }
    }
}

/// How people see a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Every column, moments in full, nothing cut.
    wide: bool,
    /// Of the terminal, in characters.
    width: Option<usize>,
    colour: bool,
}

impl Look {
    /// As standard output shows it: colour on a terminal only, and not if `NO_COLOR` is set.
    pub fn of_stdout(wide: bool) -> Look {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Look { wide, width: None, colour: false };
        }
        let columns = tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Look { wide, width: Some(columns).filter(|&columns| columns > 0), colour: !no_colour }
    }
}

/// Named columns and their rows.
pub struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// Without rows.
    pub fn new(columns: &'static [Column]) -> Self {
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
            let names = self.columns.iter().map(|column| column.name.to_owned());
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
    pub fn write_text(&self, output: &mut impl Write, look: Look) -> io::Result<()> {
        let is_shown = |column: &Column| look.wide || column.shape != Shape::Wide;
        let shown: Vec<usize> =
            (0..self.columns.len()).filter(|&at| is_shown(&self.columns[at])).collect();
        let heading = shown.iter().map(|&at| self.columns[at].name.to_uppercase()).collect();
        let cells = |row: &Vec<Value>| shown.iter().map(|&at| self.cell(at, row, look)).collect();
        let lines: Vec<Vec<String>> =
            std::iter::once(heading).chain(self.rows.iter().map(cells)).collect();
        let widths = self.widths(&shown, &lines, look);
        for (number, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for ((cell, &width), &at) in line.iter().zip(&widths).zip(&shown) {
                let cell = format!("{:width$}", cut(cell, width));
                let is_state = number > 0 && self.columns[at].shape == Shape::State;
                text.push_str(&if is_state && look.colour { coloured(&cell) } else { cell });
                text.push_str("  ");
            }
            writeln!(output, "{}", text.trim_end())?;
        }
        output.flush()
    }

    /// Every value on a line of its own, an empty line behind each row: for rows that are too long.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_blocks(&self, output: &mut impl Write, look: Look) -> io::Result<()> {
        let width = self.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        for row in &self.rows {
            for (at, column) in self.columns.iter().enumerate() {
                let cell = self.cell(at, row, look);
                let is_state = column.shape == Shape::State && look.colour;
                let cell = if is_state { coloured(&cell) } else { cell };
                writeln!(output, "{:width$}  {cell}", column.name.replace('_', " "))?;
            }
            output.write_all(b"\n")?;
        }
        output.flush()
    }

    fn cell(&self, at: usize, row: &[Value], look: Look) -> String {
        match (self.columns[at].shape, &row[at]) {
            (Shape::Age, Value::String(moment)) if !look.wide => {
                age_of(moment).unwrap_or_else(|| moment.clone())
            }
            (_, value) => cell(value),
        }
    }

    /// As wide as the widest; the last one as wide as there is room for.
    fn widths(&self, shown: &[usize], lines: &[Vec<String>], look: Look) -> Vec<usize> {
        let widest = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..shown.len()).map(widest).collect();
        let is_cut = shown.last().is_some_and(|&at| self.columns[at].shape == Shape::Rest);
        if let (true, false, Some(room)) = (is_cut, look.wide, look.width)
            && let Some((last, others)) = widths.split_last_mut()
        {
            let taken: usize = others.iter().map(|width| width + 2).sum();
            *last = (*last).min(room.saturating_sub(taken).max(LEAST));
        }
        widths
    }
}

/// So much of the last column is shown on any terminal.
const LEAST: usize = 12;

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Red for what is wrong, yellow for what is not over.
fn coloured(cell: &str) -> String {
    let code = match cell.trim_end() {
        "no" | "error" | "gone" | "hung" => "31",
        "pending" | "unsettled" => "33",
        _ => return cell.to_owned(),
    };
    format!("\x1b[{code}m{cell}\x1b[0m")
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

    const PIPE: Look = Look { wide: false, width: None, colour: false };

    const COLUMNS: [Column; 4] = [
        Column::plain("target"),
        Column::wide("operation"),
        Column::state("mounted"),
        Column::rest("message"),
    ];

    fn table() -> Table {
        let mut table = Table::new(&COLUMNS);
        table.add(vec![json!("t1"), json!("o1"), json!(true), json!("it went well, and quickly")]);
        table.add(vec![json!("a\x1b[2J"), Value::Null, json!(false), Value::Null]);
        table
    }

    fn shown(look: Look) -> String {
        let mut text = Vec::new();
        table().write_text(&mut text, look).expect("a vector takes all");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn a_table_is_aligned_and_cannot_write_to_the_terminal() {
        let want = "TARGET      MOUNTED  MESSAGE\nt1          yes      it went well, and quickly\n\
                    a\\u{1b}[2J  no       -\n";
        assert_eq!(shown(PIPE), want);
        let wide = shown(Look { wide: true, ..PIPE });
        assert!(wide.starts_with("TARGET      OPERATION  MOUNTED  MESSAGE\n"), "{wide}");
    }

    #[test]
    fn a_terminal_has_an_edge_and_colours() {
        let narrow = shown(Look { width: Some(36), ..PIPE });
        assert!(narrow.lines().all(|line| line.chars().count() <= 36), "{narrow}");
        assert!(narrow.contains("it went well, …"), "{narrow}");
        let coloured = shown(Look { colour: true, ..PIPE });
        assert!(coloured.contains("  \x1b[31mno     \x1b[0m  -"), "{coloured:?}");
        assert!(!coloured.contains("m yes"), "{coloured:?}");
    }

    #[test]
    fn json_lines_name_every_column() {
        let mut text = Vec::new();
        table().write_json(&mut text).expect("a vector takes all");
        let first = String::from_utf8_lossy(&text).lines().next().map(str::to_owned);
        let want = r#"{"message":"it went well, and quickly","mounted":true,"operation":"o1","target":"t1"}"#;
        assert_eq!(first.as_deref(), Some(want));
    }
}
