//! Who keeps a job's use of a target, so that it can be seen when nobody does any more.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest that a ledger keeps, in bytes of JSON.
const LONGEST: usize = 512;

/// A run that mounts for a job and unmounts at its own end: its host, which boot of it, and the life
/// lock that it holds there. On that host it can be known whether it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host's name, as `uname -n` has it.
    pub host: String,
    /// The kernel's id of the boot.
    pub boot: String,
    /// The path of its life lock.
    pub life: String,
}

impl Owner {
    /// The owner in a request, if there is one. Anything else of that name is a field that we do
    /// not know.
    pub(crate) fn read(fields: &Map<String, Value>) -> Option<Owner> {
        let owner = Owner::deserialize(fields.get("owner")?).ok()?;
        (owner.text().len() <= LONGEST).then_some(owner)
    }

    /// As a ledger writes it down.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings are plain data")
    }

    /// What a ledger has written down.
    pub fn from_text(text: &str) -> Option<Owner> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(owner: &Value) -> Option<Owner> {
        Owner::read(json!({ "owner": owner }).as_object().expect("it is one"))
    }

    #[test]
    fn an_owner_is_kept_whole_or_not_at_all() {
        let owner = read(&json!({"host": "h", "boot": "b", "life": "/l/x"})).expect("an owner");
        assert_eq!(Owner::from_text(&owner.text()), Some(owner));
        for other in [json!("me"), json!({"host": "h"}), Value::Null] {
            assert_eq!(read(&other), None);
        }
        assert_eq!(read(&json!({"host": "h", "boot": "b", "life": "x".repeat(600)})), None);
    }
}
