//! Which configuration files there are, and which of them are to be believed.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::ini::{self, Entry};
use crate::url::hide_passwords;
use crate::{Context, Failure};

const SERVER: &str = "/etc/trilio-dms/server.conf";
const CLIENT: &str = "/etc/trilio-dms/client.conf";
const PERSONAL: &str = ".trilio-dms/client.conf";

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The node's own: `server.conf`.
    Node,
    /// What a user works with: `~/.trilio-dms/client.conf`, then `client.conf`, then `server.conf`.
    Client,
}

/// A configuration file that was read.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) entries: Vec<Entry>,
}

impl Files {
    /// Those that are there, the first that has a key winning; or the one that is named, alone.
    pub(super) fn read(
        self,
        named: Option<PathBuf>,
        home: Option<PathBuf>,
    ) -> Result<Vec<ConfigFile>, Failure> {
        if let Some(path) = named {
            let content = read(&path).map_err(|why| {
                Failure::permanent(format!("unable to read {}: {why}", path.display()))
            })?;
            return Ok(vec![ConfigFile::parse(path, &content)?]);
        }
        let server = PathBuf::from(SERVER);
        let paths = match self {
            Files::Node => vec![server],
            Files::Client => {
                let home = home.filter(|home| home.is_absolute());
                let personal = home.map(|home| home.join(PERSONAL));
                personal.into_iter().chain([PathBuf::from(CLIENT), server]).collect()
            }
        };
        let mut files = Vec::new();
        for path in paths {
            match read(&path) {
                Ok(content) => files.push(ConfigFile::parse(path, &content)?),
                // The system's files may hold passwords: not everybody may read them.
                Err(why) if why.kind() == ErrorKind::PermissionDenied => {
                    log::debug!("unable to read {}: {why}", path.display());
                }
                Err(why) if is_absent(&why) => {}
                Err(why) => return Err(why).context("unable to read", path.display()),
            }
        }
        Ok(files)
    }
}

fn is_absent(why: &io::Error) -> bool {
    matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

struct Content {
    text: String,
    about: Metadata,
}

fn read(path: &Path) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Content { text, about })
}

impl ConfigFile {
    fn parse(path: PathBuf, content: &Content) -> Result<Self, Failure> {
        let name = path.display();
        refuse_a_strangers(&path, &content.about)?;
        let section = match path.file_name().is_some_and(|name| name == "client.conf") {
            true => "client",
            false => "server",
        };
        let parsed = ini::parse(&content.text, section);
        let parsed = parsed
            .map_err(|why| Failure::permanent(format!("{name}:{}: {}", why.line, why.text)))?;
        for stranger in &parsed.strangers {
            log::warn!("{name}:{}: {}", stranger.line, stranger.text);
        }
        let has_password =
            parsed.entries.iter().any(|entry| hide_passwords(&entry.value) != entry.value);
        if has_password && content.about.mode() & 0o004 != 0 {
            log::warn!("{name} has a password in it, and everybody may read it");
        }
        Ok(ConfigFile { entries: parsed.entries, path })
    }
}

/// Who may write it, may have root run what he likes.
fn refuse_a_strangers(path: &Path, about: &Metadata) -> Result<(), Failure> {
    let (owner, name) = (about.uid(), path.display());
    if owner != 0 && owner != geteuid().as_raw() {
        let text = format!("{name} is owned by uid {owner}: not used");
        return Err(Failure::permanent(text));
    }
    if about.mode() & 0o022 != 0 {
        return Err(Failure::permanent(format!("{name} may be written by others: not used")));
    }
    Ok(())
}
