//! A GET, with a token or without: over HTTP/1.1, to the URL that it is told and to no other.
//!
//! It follows no redirect, uses no proxy, and ends at a deadline, however slowly the peer speaks.
//! Nothing that the peer says is quoted: it was told the token.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dms_wire::{Deadline, Secret};
use ureq::http::HeaderValue;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Error, Timeout};

use super::endpoint::Endpoint;
use super::{Result, no};

/// How long a host may take to be found, and then to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// What an answer's head may have, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// More than any token is long, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// How peers are verified.
pub(super) struct Client {
    /// With the authorities to trust instead of the system's.
    ca_file: Option<PathBuf>,
    is_insecure: bool,
}

/// One fetch: its token, and when it has to be over.
pub(super) struct Session {
    agent: Agent,
    token: Option<HeaderValue>,
    until: Deadline,
}

/// An answer: its status and, if that is 200, its body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(ca_file: Option<PathBuf>, is_insecure: bool) -> Self {
        Client { ca_file, is_insecure }
    }

    pub(super) fn trusts_everybody(&self) -> bool {
        self.is_insecure
    }

    /// Read for each fetch: whoever needs none, to unmount, can do without a file that is no good.
    fn tls(&self) -> Result<TlsConfig> {
        let roots = match &self.ca_file {
            None => RootCerts::PlatformVerifier,
            Some(path) => authorities(path).or_else(|why| {
                no(format_args!("unable to read DMS_CA_FILE {}: {why}", path.display()))
            })?,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(roots)
            .disable_verification(self.is_insecure);
        Ok(tls.build())
    }

    pub(super) fn session(&self, token: &Secret, until: Deadline) -> Result<Session> {
        let token = token.reveal();
        let is_plain = (1..=MAX_TOKEN).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = HeaderValue::from_str(token).ok().filter(|_| is_plain);
        let Some(mut token) = token else {
            return no("the request's token is not a usable token");
        };
        token.set_sensitive(true);
        Ok(Session { token: Some(token), ..self.session_without_token(until)? })
    }

    /// To see who is there.
    pub(super) fn session_without_token(&self, until: Deadline) -> Result<Session> {
        let config = Agent::config_builder()
            .tls_config(self.tls()?)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(MAX_HEAD)
            // Each question has its own: a peer may just be about to end one that is kept.
            .max_idle_connections(0)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("dms-mount/", env!("CARGO_PKG_VERSION")));
        Ok(Session { agent: config.build().new_agent(), token: None, until })
    }
}

fn authorities(path: &Path) -> Result<RootCerts, String> {
    let text = fs::read(path).map_err(|why| why.to_string())?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| "it is no PEM file")? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(RootCerts::new_with_certs(&found))
}

impl Session {
    /// Gets `path` below the endpoint; of the body, `limit` bytes at most.
    pub(super) fn get(
        &self,
        at: &Endpoint,
        path: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Answer> {
        if self.until.passed() {
            return no(format_args!("timeout: there was no time left to ask {at}"));
        }
        log::debug!("asking {at}{path} for {accept}");
        let mut ask = self.agent.get(format!("{at}{path}")).header("Accept", accept);
        if let Some(token) = &self.token {
            ask = ask.header("X-Auth-Token", token.clone());
        }
        let asked = ask
            .config()
            // All of it: from the look-up of the host to the last byte of the body.
            .timeout_global(Some(self.until.left()))
            .build()
            .call();
        let answer = asked.or_else(|why| no(reason(at, limit, &why)))?;
        let status = answer.status().as_u16();
        log::debug!("{at} answered {status}");
        if status != 200 {
            return Ok(Answer { status, body: Vec::new() });
        }
        let body = answer.into_body().into_with_config().limit(limit).read_to_vec();
        Ok(Answer { status, body: body.or_else(|why| no(reason(at, limit, &why)))? })
    }
}

impl Answer {
    /// What any service may answer instead of what was asked for.
    pub(super) fn unexpected<T>(&self, at: &Endpoint) -> Result<T> {
        let status = self.status;
        match status {
            300..400 => no(format_args!("{at} redirects elsewhere ({status}): not followed")),
            500..600 => no(format_args!("{at} has failed ({status})")),
            _ => no(format_args!("{at} gave an unexpected answer ({status})")),
        }
    }
}

/// An error in words of our own: some of the library's quote what came.
fn reason(at: &Endpoint, limit: u64, why: &Error) -> String {
    match why {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            format!("timeout: unable to connect to {at}")
        }
        Error::Timeout(_) => format!("timeout: {at} does not answer in time"),
        Error::Io(why) if why.kind() == ErrorKind::TimedOut => {
            format!("timeout: unable to connect to {at}")
        }
        Error::Io(why) => format!("unable to ask {at}: {why}"),
        Error::HostNotFound => format!("unable to ask {at}: its host is not known"),
        Error::NativeTls(why) => format!("unable to trust {at}: {}", tls_reason(&why.to_string())),
        Error::BodyExceedsLimit(_) => format!("the answer of {at} is longer than {limit} bytes"),
        Error::LargeResponseHeader(..) => format!("the head of the answer of {at} is too long"),
        _ => format!("the answer of {at} is not HTTP"),
    }
}

/// Of OpenSSL's words those that are for people: what is in brackets at the end, or else the reason in
/// `error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:`.
fn tls_reason(text: &str) -> &str {
    let inner = text.strip_suffix(')').and_then(|text| text.rsplit_once('('));
    let reason = || text.strip_prefix("error:").and_then(|text| text.split(':').nth(3));
    inner.map(|(_, last)| last).or_else(reason).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::tls_reason;

    #[test]
    fn openssls_reason_is_told_without_its_codes() {
        for (text, reason) in [
            ("error:0A0:SSL routines:f:certificate verify failed:f.c:1: (expired)", "expired"),
            ("error:0A0:SSL routines:f:wrong version number:f.c:1:", "wrong version number"),
            ("something else", "something else"),
        ] {
            assert_eq!(tls_reason(text), reason);
        }
    }
}
