//! The secret of an S3 target: fetched when it is needed, and handed to the daemon.
//!
//! It is in a file or in a key manager, and both are the operator's choice: a request names a
//! secret, never the place that a token is sent to. The key manager is asked by another process
//! (`remote`): what that takes, OpenSSL, no other part of dms-mount loads.

mod barbican;
mod credentials;
mod endpoint;
mod file;
mod http;
mod keystone;
mod reference;
mod remote;

pub(crate) use credentials::Credentials;
pub(crate) use remote::answer;

use std::path::{Path, PathBuf};

use dms_cli::{Failure, OpenStack};
use dms_wire::{Deadline, Secret};

use self::barbican::KeyManager;

/// More than any secret is long, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Why there are no credentials: one sentence that says "credentials", and no secret.
#[derive(Debug)]
pub(crate) struct NoCredentials(pub(crate) String);

type Result<T, E = NoCredentials> = std::result::Result<T, E>;

/// As the Python server begins it.
const FAILED: &str = "Failed to fetch credentials: ";

fn no<T>(text: impl std::fmt::Display) -> Result<T> {
    Err(NoCredentials(format!("{FAILED}{text}")))
}

/// Where this node has its secrets from.
pub(crate) struct Secrets {
    dir: Option<PathBuf>,
    openstack: OpenStack,
}

impl Secrets {
    pub(crate) fn new(dir: Option<PathBuf>, openstack: &OpenStack) -> Result<Self, Failure> {
        KeyManager::new(openstack)?.warn();
        Ok(Secrets { dir, openstack: openstack.clone() })
    }

    /// Where `file://` secrets are; none: they are off.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether the key manager, or Keystone, can be reached and trusted: who it is, or why not.
    /// `None`: there is none.
    pub(crate) fn check_key_manager(&self, until: Deadline) -> Result<Option<String>, String> {
        let told = |why: NoCredentials| why.0.trim_start_matches(FAILED).to_owned();
        remote::check(&self.openstack, until).map_err(told)
    }

    /// The credentials of a mount that was made with them, as they were kept for as long as it lives.
    pub(crate) fn kept(payload: &Secret) -> Option<Credentials> {
        Credentials::parse(payload.reveal().as_bytes()).ok()
    }

    /// Fetches and reads the secret that `reference` names, with the token of whoever asks.
    pub(crate) fn fetch(
        &self,
        reference: &str,
        token: Option<&Secret>,
        until: Deadline,
    ) -> Result<Credentials> {
        let payload = match reference.strip_prefix("file://") {
            Some(path) => file::read(Path::new(path), self.dir.as_deref())?,
            None => remote::fetch(&self.openstack, reference, token, until)?,
        };
        Credentials::parse(&payload)
    }
}
