//! The settings of tools that fetch secrets from OpenStack.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::settings::SettingError;

/// Where Keystone and Barbican are, and how they are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(crate) fn read(config: &Config) -> Result<Self, SettingError> {
        let interface = config.get_or("DMS_OS_INTERFACE", || "public".to_owned())?;
        if !matches!(interface.text.as_str(), "public" | "internal" | "admin") {
            return Err(interface.refuse("is not public, internal or admin"));
        }
        let text = |name| config.get(name).map(|value| value.map(|value| value.text));
        Ok(OpenStack {
            auth_url: text("DMS_AUTH_URL")?,
            barbican_url: text("DMS_BARBICAN_URL")?,
            interface: interface.text,
            region: text("DMS_OS_REGION")?,
            ca_file: config.get("DMS_CA_FILE")?.map(|file| file.absolute()).transpose()?,
            tls_insecure: config.get_or("DMS_TLS_INSECURE", || "0".to_owned())?.yes_or_no()?,
        })
    }
}
