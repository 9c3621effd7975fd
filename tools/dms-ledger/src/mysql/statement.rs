//! A statement in either form in which a server takes it, and the rows that it answers.

use mysql::consts::ColumnType;
use mysql::prelude::Queryable;
use mysql::{Column, Conn};

use crate::store::{Answer, Row, Value};

/// A statement on its way to the server.
pub(super) enum Form {
    /// With its values in it.
    Text(String),
    Prepared(Vec<mysql::Value>),
}

impl Form {
    pub(super) fn text(sql: &str, params: &[Value]) -> Form {
        let mut text = String::new();
        write(&mut text, sql, params);
        Form::Text(text)
    }

    pub(super) fn prepared(params: &[Value]) -> Form {
        Form::Prepared(params.iter().map(parameter).collect())
    }

    pub(super) fn send(&self, connection: &mut Conn, sql: &str) -> mysql::Result<Vec<mysql::Row>> {
        match self {
            Form::Text(text) => connection.query(text),
            Form::Prepared(params) => connection.exec(sql, params.clone()),
        }
    }
}

/// Statements that are sent at once.
#[derive(Default)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) count: usize,
}

impl Script {
    pub(super) fn add(&mut self, sql: &str, params: &[Value]) {
        if self.count > 0 {
            self.text.push_str(";\n");
        }
        write(&mut self.text, sql, params);
        self.count += 1;
    }
}

/// Writes the statement behind this text, with each question mark replaced by a value, quoted. The session's
/// `sql_mode` has the server read a backslash as it is written here.
pub(super) fn write(text: &mut String, sql: &str, params: &[Value]) {
    let mut parts = sql.split('?');
    text.push_str(parts.next().unwrap_or_default());
    for (part, value) in parts.zip(params) {
        text.push_str(&parameter(value).as_sql(false));
        text.push_str(part);
    }
}

/// Sends several statements at once, and reads what came of each.
pub(super) fn read_all(connection: &mut Conn, script: &str) -> mysql::Result<Vec<Answer>> {
    let mut sets = connection.query_iter(script)?;
    let mut answers = Vec::new();
    while let Some(set) = sets.iter() {
        let id = set.last_insert_id().and_then(|id| i64::try_from(id).ok());
        let changed = set.affected_rows();
        let rows = set.map(|row| row.map(read_row)).collect::<mysql::Result<_>>()?;
        answers.push(Answer { changed, rows, id });
    }
    Ok(answers)
}

fn parameter(value: &Value) -> mysql::Value {
    match value {
        Value::Null => mysql::Value::NULL,
        Value::Int(number) => mysql::Value::Int(*number),
        Value::Text(text) => mysql::Value::Bytes(text.as_bytes().to_vec()),
    }
}

/// A row of an answer, in either form.
pub(super) fn read_row(row: mysql::Row) -> Row {
    let columns = row.columns();
    let values = row.unwrap().into_iter().zip(columns.iter());
    Row(values.map(|(value, column)| read_value(value, column)).collect())
}

fn read_value(value: mysql::Value, column: &Column) -> Value {
    /// `YYYY-MM-DD HH:MM:SS`
    const WHOLE_SECONDS: usize = 19;
    match value {
        mysql::Value::Int(number) => Value::Int(number),
        mysql::Value::UInt(number) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        mysql::Value::Bytes(bytes) => {
            let text = String::from_utf8(bytes);
            let text = text.unwrap_or_else(|it| String::from_utf8_lossy(it.as_bytes()).into());
            let is_time = column.column_type() == ColumnType::MYSQL_TYPE_DATETIME;
            // A column of the Python client has no milliseconds.
            let is_whole = is_time && text.len() == WHOLE_SECONDS;
            Value::Text(if is_whole { format!("{text}.000") } else { text })
        }
        mysql::Value::Date(year, month, day, hour, minute, second, micros) => Value::Text(format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
            micros / 1000
        )),
        // No column of ours holds any of these.
        mysql::Value::NULL
        | mysql::Value::Float(_)
        | mysql::Value::Double(_)
        | mysql::Value::Time(..) => Value::Null,
    }
}
