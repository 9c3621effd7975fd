//! amqps: who the broker must be, and who we are.

use std::fs;
use std::path::Path;

use native_tls::{Certificate, Identity, Protocol, TlsConnector};

use crate::amqp::broker::Tls;

/// A connector that trusts the given authority alone, or else the system's, and shows our
/// certificate if there is one.
pub(crate) fn connector(tls: &Tls) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(path) = &tls.ca {
        let found = Certificate::stack_from_pem(&read(path)?);
        let found = found.map_err(|why| format!("{} is no certificate: {why}", path.display()))?;
        if found.is_empty() {
            return Err(format!("there is no certificate in {}", path.display()));
        }
        builder.disable_built_in_roots(true);
        for certificate in found {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some((certificate, key)) = &tls.identity {
        let identity = Identity::from_pkcs8(&read(certificate)?, &read(key)?).map_err(|why| {
            let (certificate, key) = (certificate.display(), key.display());
            format!("{certificate} and {key} are no certificate and PKCS #8 key, both PEM: {why}")
        })?;
        builder.identity(identity);
    }
    builder.build().map_err(|why| format!("unable to set up TLS: {why}"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| format!("unable to read {}: {why}", path.display()))
}
