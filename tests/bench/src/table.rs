//! What was measured: as a table for people, the ratios first, and as JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::sample::Sample;

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Nobody has set one: it is there to compare with.
    None,
}

impl Limit {
    fn holds(self, figure: f64) -> Option<bool> {
        match self {
            Limit::AtMost(limit) => Some(figure <= limit),
            Limit::AtLeast(limit) => Some(figure >= limit),
            Limit::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Limit::AtMost(limit) => format!("<= {limit}"),
            Limit::AtLeast(limit) => format!(">= {limit}"),
            Limit::None => String::new(),
        }
    }
}

/// One line of the table.
struct Row {
    what: String,
    against: String,
    /// The figure that the limit is about: a ratio, or ours itself.
    figure: f64,
    limit: Limit,
    ours: String,
    theirs: String,
    json: Value,
}

/// All lines, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// How many times as long ours takes, by the medians.
    pub(crate) fn ratio(
        &mut self,
        what: &str,
        ours: &Sample,
        (against, theirs): (&str, &Sample),
        limit: Limit,
    ) {
        let ratio = ours.median() / theirs.median();
        let text =
            |sample: &Sample| format!("{:.3} ms ({:.3})", sample.median(), sample.part(99.0));
        let numbers = |sample: &Sample| json!({"p50": sample.median(), "p99": sample.part(99.0)});
        self.add(Row {
            what: what.to_owned(),
            against: against.to_owned(),
            figure: ratio,
            limit,
            ours: text(ours),
            theirs: text(theirs),
            json: json!({"unit": "ms", "ours": numbers(ours), "theirs": numbers(theirs)}),
        });
    }

    /// A figure of its own, in this unit.
    pub(crate) fn figure(&mut self, what: &str, figure: f64, unit: &str, limit: Limit) {
        self.add(Row {
            what: what.to_owned(),
            against: String::new(),
            figure,
            limit,
            ours: format!("{figure:.2} {unit}"),
            theirs: String::new(),
            json: json!({"unit": unit}),
        });
    }

    /// Two figures that are no times, and how many times as much ours is.
    pub(crate) fn figures(
        &mut self,
        what: &str,
        (ours, theirs): (f64, f64),
        unit: &str,
        against: &str,
        limit: Limit,
    ) {
        self.add(Row {
            what: what.to_owned(),
            against: against.to_owned(),
            figure: ours / theirs,
            limit,
            ours: format!("{ours:.2} {unit}"),
            theirs: format!("{theirs:.2} {unit}"),
            json: json!({"unit": unit, "ours": ours, "theirs": theirs}),
        });
    }

    /// Said at once: who waits for the rest sees it come.
    fn add(&mut self, row: Row) {
        say(&row.line());
        self.0.push(row);
    }

    /// All of it again, in one piece, and how many figures are not what they have to be.
    pub(crate) fn print(&self) -> usize {
        say("");
        say(&header());
        self.0.iter().for_each(|row| say(&row.line()));
        let over = self.0.iter().filter(|row| row.limit.holds(row.figure) == Some(false)).count();
        say(&format!("{} figures, {over} beyond their limit", self.0.len()));
        over
    }

    /// Writes it, with what was measured on.
    pub(crate) fn write(&self, path: &Path, machine: &Value) -> io::Result<()> {
        let row = |row: &Row| {
            json!({
                "what": row.what, "against": row.against, "figure": row.figure,
                "limit": row.limit.text(), "holds": row.limit.holds(row.figure),
                "measured": row.json,
            })
        };
        let rows: Vec<Value> = self.0.iter().map(row).collect();
        let text = serde_json::to_string_pretty(&json!({"machine": machine, "rows": rows}))?;
        fs::write(path, text + "\n")
    }
}

impl Row {
    fn line(&self) -> String {
        let verdict = match self.limit.holds(self.figure) {
            Some(true) => "ok",
            Some(false) => "OVER",
            None => "",
        };
        let Row { what, against, figure, limit, ours, theirs, .. } = self;
        let limit = limit.text();
        format!("{figure:>9.3}  {limit:<8}  {verdict:<4}  {what:<62}  {ours:<22}  {theirs:<22}  {against}")
            .trim_end()
            .to_owned()
    }
}

fn header() -> String {
    format!(
        "{:>9}  {:<8}  {:<4}  {:<62}  {:<22}  {:<22}  {}",
        "figure", "limit", "", "what", "ours: p50 (p99)", "theirs: p50 (p99)", "theirs are"
    )
}

/// A line for whoever waits.
pub(crate) fn say(text: &str) {
    // If nobody reads it, the file still tells.
    let _ = writeln!(io::stdout().lock(), "{text}");
}
