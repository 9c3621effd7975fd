//! Requests that were good, until somebody put hostile words in.

use proptest::prelude::*;
use proptest::{collection, option, sample};
use serde_json::{Value, json};

use crate::lines::with;
use crate::stage::Stage;

/// The fields that are looked at, and one that is not.
const FIELDS: [&str; 17] = [
    "/action",
    "/host",
    "/jobid",
    "/job",
    "/keystone_token",
    "/request_id",
    "/deadline",
    "/context",
    "/unknown",
    "/backup_target",
    "/backup_target/id",
    "/backup_target/type",
    "/backup_target/secret_ref",
    "/backup_target/filesystem_export",
    "/backup_target/filesystem_export_mount_path",
    "/backup_target/nfs_mount_opts",
    "/backup_target/status",
];

/// Pieces that words are made of; `@BASE@` and others are filled in.
#[rustfmt::skip]
const PIECES: [&str; 44] = [
    "..", "/", "/../", "//", "\0", "\n", "\r\n", "\t", " ", "-", "--", "-o", ",", "=", ":", "%", "%00",
    "%2e%2e", "\\", "'", "\"", "$(id)", "`id`", "*", "\u{202e}", "\u{200b}", "\u{feff}", "\u{ff0e}", "\u{301}",
    "\u{1b}[2J", "suid", "bind", "remount", "exec", "t1", "rw", "mute:/x", "file://", "@BASE@", "@DECOY@",
    "@SECRETS@", "@THERE@", "@KMS@", "@GOOD@",
];

/// What may stand in the place of something.
#[derive(Debug, Clone)]
enum Word {
    Pieces(Vec<&'static str>),
    Text(String),
    Long(char, usize),
    Json(Value),
}

/// What is done to the line that comes of it.
#[derive(Debug, Clone)]
enum Harm {
    /// So much of it, in a hundredth.
    Cut(usize),
    Insert(usize, Vec<u8>),
    /// The same key once more, before all others.
    Twice(&'static str, String),
}

/// A request, and what happened to it.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    request: Value,
    changes: Vec<(&'static str, Word)>,
    harm: Option<Harm>,
    words: Vec<(&'static str, String)>,
}

impl Word {
    fn value(&self) -> Value {
        match self {
            Word::Pieces(pieces) => json!(pieces.concat()),
            Word::Text(text) => json!(text),
            Word::Long(letter, length) => json!(letter.to_string().repeat(*length)),
            Word::Json(value) => value.clone(),
        }
    }
}

impl Mutant {
    /// As it is sent.
    pub(crate) fn line(&self) -> Vec<u8> {
        let mut request = self.request.clone();
        for (field, word) in &self.changes {
            // Its parent may have become something else.
            let parent = field.rsplit_once('/').map_or("", |(parent, _)| parent);
            if request.pointer(parent).is_some_and(Value::is_object) {
                request = with(request, field, word.value());
            }
        }
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
        let text = self.words.iter().fold(request.to_string(), fill);
        let mut line = match &self.harm {
            Some(Harm::Twice(key, word)) => {
                format!("{{{}:{},{}", json!(key), json!(word), &text[1..]).into_bytes()
            }
            _ => text.into_bytes(),
        };
        match &self.harm {
            Some(Harm::Cut(percent)) => line.truncate(line.len() * percent / 100),
            Some(Harm::Insert(percent, bytes)) => {
                let at = line.len() * percent / 100;
                line.splice(at..at, bytes.iter().copied());
            }
            _ => {}
        }
        // It is one line.
        line.retain(|byte| *byte != b'\n');
        line
    }
}

/// What an answer to any of them may be.
pub(crate) fn judge(answer: &Value) -> Result<(), String> {
    const CODES: [&str; 6] =
        ["validation", "credentials", "mount", "timeout", "no_active_mount", "lock_timeout"];
    let code = answer["error_code"].as_str().unwrap_or_default();
    // There was nothing to unmount.
    let is_harmless = answer["status"] == "success" && answer["unmounted"] == true;
    if is_harmless || CODES.contains(&code) { Ok(()) } else { Err(format!("unforeseen: {answer}")) }
}

fn words() -> impl Strategy<Value = Word> {
    let plain = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        collection::vec(sample::select(PIECES.to_vec()), 0..4).prop_map(|words| json!(words)),
        collection::hash_map(any::<String>(), any::<i8>(), 0..3).prop_map(|map| json!(map)),
    ];
    prop_oneof![
        6 => collection::vec(sample::select(PIECES.to_vec()), 0..6).prop_map(Word::Pieces),
        3 => collection::vec(any::<char>(), 0..40).prop_map(|text| Word::Text(text.iter().collect())),
        1 => (any::<char>(), 0..3000_usize).prop_map(|(letter, length)| Word::Long(letter, length)),
        2 => plain.prop_map(Word::Json),
    ]
}

fn harms() -> impl Strategy<Value = Harm> {
    let text = collection::vec(sample::select(PIECES.to_vec()), 0..4).prop_map(|p| p.concat());
    prop_oneof![
        (0..100_usize).prop_map(Harm::Cut),
        (0..=100_usize, collection::vec(any::<u8>(), 1..6)).prop_map(|(at, b)| Harm::Insert(at, b)),
        (sample::select(vec!["action", "host", "backup_target", "jobid", "plan"]), text)
            .prop_map(|(key, word)| Harm::Twice(key, word)),
    ]
}

/// Any of them.
pub(crate) fn requests(stage: &Stage) -> impl Strategy<Value = Mutant> + use<> {
    let target = |kind: &str, more: Value| {
        let mut target = json!({"id": "t1", "type": kind, "status": "available"});
        for (name, value) in more.as_object().into_iter().flatten() {
            target[name] = value.clone();
        }
        target
    };
    let targets = vec![
        target("s3", json!({"secret_ref": "@KMS@"})),
        target("s3", json!({"secret_ref": "@GOOD@", "filesystem_export_mount_path": "@BASE@/t1"})),
        target("nfs", json!({"filesystem_export": "mute:/x", "nfs_mount_opts": "ro"})),
    ];
    let words_of_stage: Vec<(&'static str, String)> = stage.words().into();
    let request = (sample::select(targets), sample::select(vec!["mount", "mount", "unmount"]));
    let changes = collection::vec((sample::select(FIELDS.to_vec()), words()), 1..5);
    (request, changes, option::weighted(0.2, harms())).prop_map(
        move |((target, action), changes, harm)| Mutant {
            request: json!({"host": "compute-01", "jobid": 1, "keystone_token": "@TOKEN@",
                "action": action, "context": {"user_id": "u"}, "backup_target": target}),
            changes,
            harm,
            words: words_of_stage.clone(),
        },
    )
}
