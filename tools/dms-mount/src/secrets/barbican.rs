//! A secret in Barbican.
//!
//! The token goes to the key manager that the operator has configured, or that the token's own
//! catalogue names. A reference to another one is refused before anything is sent; what is asked
//! for is made of the configured URL and the secret's id.

use std::collections::BTreeMap;
use std::time::Duration;

use dms_cli::{Failure, OpenStack};
use dms_wire::{Deadline, Secret};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::http::{Answer, Client, Session};
use super::keystone::Keystone;
use super::reference::Reference;
use super::{MAX_SECRET, Result, no};

/// How long one fetch may take, however much time the request has: a job would rather be told.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

/// The key manager of this node, if it has one.
pub(super) struct KeyManager {
    client: Client,
    place: Place,
}

/// How it is found.
enum Place {
    Nowhere,
    At(Endpoint),
    InCatalogue(Keystone),
}

/// What the key manager says of a secret. It only explains: the payload decides.
#[derive(Deserialize)]
struct Metadata {
    status: Option<String>,
    expiration: Option<String>,
    content_types: Option<BTreeMap<String, String>>,
}

impl KeyManager {
    pub(super) fn new(settings: &OpenStack) -> Result<Self, Failure> {
        let client = Client::new(settings.ca_file.clone(), settings.tls_insecure);
        let place = match (&settings.barbican_url, &settings.auth_url) {
            (Some(url), _) => Place::At(configured("DMS_BARBICAN_URL", url)?.without("/v1")),
            (None, Some(url)) => {
                Place::InCatalogue(Keystone::new(configured("DMS_AUTH_URL", url)?, settings))
            }
            (None, None) => Place::Nowhere,
        };
        Ok(KeyManager { client, place })
    }

    /// Warns of settings that let others have what they should not.
    pub(super) fn warn(&self) {
        if self.client.trusts_everybody() {
            log::warn!(
                "DMS_TLS_INSECURE is set: whoever is on the way can have tokens and secrets"
            );
        }
        match &self.place {
            Place::At(at) if !at.is_tls() => warn_of_plain_http("DMS_BARBICAN_URL"),
            Place::InCatalogue(keystone) if !keystone.place().is_tls() => {
                warn_of_plain_http("DMS_AUTH_URL");
            }
            _ => {}
        }
    }

    /// The payload of the secret that `reference` names.
    pub(super) fn fetch(
        &self,
        reference: &str,
        token: Option<&Secret>,
        until: Deadline,
    ) -> Result<Vec<u8>> {
        let secret = Reference::parse(reference)?;
        if matches!(self.place, Place::Nowhere) {
            return no("there is no key manager: neither DMS_BARBICAN_URL nor DMS_AUTH_URL is set");
        }
        let Some(token) = token else {
            return no("the request carries no token for the key manager");
        };
        let session = self.client.session(token, until.min(Deadline::after(PATIENCE)))?;
        let at = self.find(&session)?;
        if secret.at != at {
            let elsewhere = secret.at;
            return no(format_args!(
                "the secret_ref is of {elsewhere}, and the key manager is {at}: nothing was sent"
            ));
        }
        Ask { session: &session, at: &at, id: &secret.id }.fetch()
    }

    /// Whether somebody who can be trusted answers, asked without a token; says who. `None`: there
    /// is no key manager.
    pub(super) fn check(&self, until: Deadline) -> Result<Option<String>> {
        let (what, at) = match &self.place {
            Place::Nowhere => return Ok(None),
            Place::At(at) => ("the key manager", at),
            // Where the key manager is, only a token's catalogue says.
            Place::InCatalogue(keystone) => ("Keystone", keystone.place()),
        };
        let answer = self.client.session_without_token(until)?.get(at, "/", JSON, MAX_SECRET)?;
        match answer.status {
            500.. => answer.unexpected(at),
            // Whatever it says to a stranger, it is there.
            _ => Ok(Some(format!("{what} {at} answers"))),
        }
    }

    fn find(&self, session: &Session) -> Result<Endpoint> {
        match &self.place {
            Place::Nowhere => no("there is no key manager"),
            Place::At(at) => Ok(at.clone()),
            Place::InCatalogue(keystone) => {
                let at = keystone.key_manager(session)?;
                if !at.is_tls() {
                    warn_of_plain_http(&format!("the key manager {at} of the catalogue"));
                }
                Ok(at)
            }
        }
    }
}

/// A URL of the operator's. It is not quoted: a password could be in it.
fn configured(name: &str, url: &str) -> Result<Endpoint, Failure> {
    Endpoint::parse(url)
        .map_err(|why| Failure::permanent(format!("{name} is no plain URL of a service: {why}")))
}

fn warn_of_plain_http(what: &str) {
    log::warn!("{what} is plain http: whoever is on the way can read tokens and secrets");
}

/// One secret, asked for with one token.
struct Ask<'a> {
    session: &'a Session,
    at: &'a Endpoint,
    id: &'a str,
}

impl Ask<'_> {
    fn fetch(&self) -> Result<Vec<u8>> {
        let metadata = self.metadata()?;
        let status = metadata.as_ref().and_then(|metadata| metadata.status.as_deref());
        if let Some(status) = status.filter(|status| *status != "ACTIVE") {
            // Its own words are not quoted: it was told the token.
            let status = if status == "PENDING" { "is still pending" } else { "is not active" };
            return no(format_args!("secret {} {status}", self.id));
        }
        let kinds = metadata.as_ref().and_then(|metadata| metadata.content_types.as_ref());
        let is_bytes = kinds.is_some_and(|kinds| kinds.values().any(|kind| kind == BYTES));
        let mut answer = self.payload(if is_bytes { BYTES } else { TEXT })?;
        if answer.status == 406 && !is_bytes {
            answer = self.payload(BYTES)?;
        }
        match answer.status {
            200 => Ok(answer.body),
            404 => self.no_payload(metadata.as_ref()),
            406 => no(format_args!("secret {} is neither text nor bytes (406)", self.id)),
            _ => self.refused(&answer),
        }
    }

    fn get(&self, tail: &str, accept: &str) -> Result<Answer> {
        self.session.get(self.at, &format!("/v1/secrets/{}{tail}", self.id), accept, MAX_SECRET)
    }

    fn payload(&self, accept: &str) -> Result<Answer> {
        self.get("/payload", accept)
    }

    /// `None` if only the payload can be read, or if it is said in a way that we do not know.
    fn metadata(&self) -> Result<Option<Metadata>> {
        let answer = self.get("", JSON)?;
        match answer.status {
            200 => Ok(serde_json::from_slice(&answer.body).ok()),
            401 | 404 => self.refused(&answer),
            _ => Ok(None),
        }
    }

    fn refused<T>(&self, answer: &Answer) -> Result<T> {
        let id = self.id;
        match answer.status {
            401 => {
                no(format_args!("Permission denied: the token is not valid for secret {id} (401)"))
            }
            403 => no(format_args!(
                "Permission denied: the token's project may not read secret {id} (403)"
            )),
            404 => no(format_args!("secret {id} not found, or expired (404)")),
            _ => answer.unexpected(self.at),
        }
    }

    fn no_payload<T>(&self, metadata: Option<&Metadata>) -> Result<T> {
        let id = self.id;
        let has_kinds = metadata.is_some_and(|metadata| metadata.content_types.is_some());
        let expires = metadata.is_some_and(|metadata| metadata.expiration.is_some());
        if has_kinds && expires {
            return no(format_args!("secret {id} has expired (404)"));
        }
        no(format_args!("secret {id} has no payload (404)"))
    }
}
