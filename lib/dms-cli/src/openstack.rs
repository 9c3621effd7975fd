//! The settings of tools that fetch secrets from OpenStack.

use std::path::PathBuf;

use crate::settings::SettingError;

/// Where Keystone and Barbican are, and how they are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenStack {
    /// `DMS_AUTH_URL`, no default: Keystone.
    pub auth_url: Option<String>,
    /// `DMS_BARBICAN_URL`: Barbican. Default: what the catalogue of a token names.
    pub barbican_url: Option<String>,
    /// `DMS_OS_INTERFACE`, default `public`, as other services of OpenStack have it: which of the
    /// catalogue's endpoints.
    pub interface: String,
    /// `DMS_OS_REGION`, needed only where the catalogue has several.
    pub region: Option<String>,
    /// `DMS_CA_FILE`: the authorities to trust. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// `DMS_TLS_INSECURE`: trust everybody.
    pub tls_insecure: bool,
}

impl OpenStack {
    pub(crate) fn read(
        text: impl Fn(&str) -> Result<Option<String>, SettingError>,
        absolute: impl Fn(&str, &str) -> Result<PathBuf, SettingError>,
    ) -> Result<Self, SettingError> {
        let interface = text("DMS_OS_INTERFACE")?.unwrap_or_else(|| "public".to_owned());
        if !matches!(interface.as_str(), "public" | "internal" | "admin") {
            let text = format!("DMS_OS_INTERFACE {interface:?} is not public, internal or admin");
            return Err(SettingError(text));
        }
        let tls_insecure = match text("DMS_TLS_INSECURE")?.as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(SettingError(format!("DMS_TLS_INSECURE {other:?} is neither 0 nor 1")));
            }
        };
        Ok(OpenStack {
            auth_url: text("DMS_AUTH_URL")?,
            barbican_url: text("DMS_BARBICAN_URL")?,
            interface,
            region: text("DMS_OS_REGION")?,
            ca_file: match text("DMS_CA_FILE")? {
                None => None,
                Some(file) => Some(absolute("DMS_CA_FILE", &file)?),
            },
            tls_insecure,
        })
    }
}
