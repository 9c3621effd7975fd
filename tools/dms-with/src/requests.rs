//! Requests from files, and from standard input: JSON objects, one after the other.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dms_cli::{Context, Failure, refuse};
use serde_json::{Deserializer, Value};

use crate::wanted::Wanted;

/// More than anybody has to say.
const LONGEST: u64 = 16 << 20;

/// The requests of all files, in order. Each file has one at least, and none is there twice.
pub(crate) fn read(files: &[PathBuf], token: Option<&str>) -> Result<Vec<Wanted>, Failure> {
    let mut all: Vec<Wanted> = Vec::new();
    for file in files {
        let (name, text) = read_file(file)?;
        let mut count = 0;
        for value in Deserializer::from_slice(&text).into_iter::<Value>() {
            count += 1;
            let bad = |why: &str| refuse(&format!("request {count} in {name} is no good: {why}"));
            // serde_json's own message may quote the text.
            let line = value.map_err(|_| bad("it is not JSON"))?.to_string();
            let wanted = Wanted::read(line.as_bytes(), token).map_err(|why| bad(&why.0))?;
            if all.iter().any(|other| other.is_as(&wanted)) {
                return Err(bad(&format!("{} is there already", wanted.name())));
            }
            all.push(wanted);
        }
        if count == 0 {
            return Err(refuse(&format!("there is no request in {name}")));
        }
    }
    Ok(all)
}

fn read_file(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin()
            .lock()
            .take(LONGEST)
            .read_to_end(&mut text)
            .context("unable to read", "stdin")?;
        return Ok(("stdin".to_owned(), text));
    }
    let name = path.display().to_string();
    let file = File::open(path)
        .map_err(|why| Failure::permanent(format!("unable to read {name}: {why}")))?;
    let about = file.metadata().context("unable to read", &name)?;
    file.take(LONGEST).read_to_end(&mut text).context("unable to read", &name)?;
    warn_of_readers(&name, &about, &text);
    Ok((name, text))
}

fn warn_of_readers(name: &str, about: &Metadata, text: &[u8]) {
    let word = b"\"keystone_token\"";
    let has_token = text.windows(word.len()).any(|part| part == word);
    if has_token && about.is_file() && about.mode() & 0o004 != 0 {
        log::warn!("{name} has a token in it, and everybody may read it");
    }
}
