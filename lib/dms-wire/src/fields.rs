//! Reading the fields of a JSON object, with errors that name the field and quote no value that could
//! be secret.

use serde_json::{Map, Value};

use crate::Invalid;

pub(crate) fn missing(field: &str) -> Invalid {
    Invalid(format!("Missing required field: {field}"))
}

pub(crate) fn object(line: &[u8]) -> Result<Map<String, Value>, Invalid> {
    let text = std::str::from_utf8(line).map_err(|_| Invalid::new("the request is not UTF-8"))?;
    // serde_json's own message may quote the input, so it is not used.
    let value: Value =
        serde_json::from_str(text).map_err(|_| Invalid::new("Invalid JSON format in request"))?;
    let Value::Object(fields) = value else {
        return Err(Invalid::new("the request is not a JSON object"));
    };
    if fields.contains_key("status") {
        return Err(Invalid::new("a line with a top-level \"status\" is not a request"));
    }
    Ok(fields)
}

/// The field `name`, if it is there and not null, as `read` sees it.
pub(crate) fn optional<'a, T>(
    fields: &'a Map<String, Value>,
    parent: &str,
    name: &str,
    read: impl Fn(&'a Value) -> Option<T>,
    kind: &str,
) -> Result<Option<T>, Invalid> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Invalid(format!("{parent}{name} is not {kind}"))),
        },
    }
}

pub(crate) fn string(
    fields: &Map<String, Value>,
    parent: &str,
    name: &str,
) -> Result<Option<String>, Invalid> {
    Ok(optional(fields, parent, name, Value::as_str, "a string")?.map(str::to_owned))
}

pub(crate) fn name<T: TryFrom<String, Error = Invalid>>(
    fields: &Map<String, Value>,
    parent: &str,
    name: &str,
) -> Result<Option<T>, Invalid> {
    string(fields, parent, name)?.map(T::try_from).transpose()
}

/// A source: an empty one is as good as none; a control character belongs in none.
pub(crate) fn filled(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Invalid> {
    let text = string(fields, "backup_target.", name)?.filter(|text| !text.is_empty());
    match text {
        Some(text) if text.chars().any(char::is_control) => {
            Err(Invalid(format!("backup_target.{name} contains a control character")))
        }
        Some(text) if text.len() > 2048 => {
            Err(Invalid(format!("backup_target.{name} is longer than 2048 bytes")))
        }
        text => Ok(text),
    }
}

/// A word of the requester in a message: short, and printable.
pub(crate) fn quote(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_default).collect()
}
