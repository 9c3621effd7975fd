//! The payload of a secret: what an S3 program needs to know of a bucket.

use dms_wire::Secret;
use serde_json::{Map, Value};

use super::{Result, no};

/// What an S3 program needs to know of a bucket.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key: Secret,
    pub(crate) secret_key: Secret,
    pub(crate) bucket: String,
    pub(crate) region: Option<String>,
    /// With its scheme; `None` is the program's own default.
    pub(crate) endpoint: Option<String>,
    pub(crate) verify_tls: bool,
    /// What else a profile may ask for, of [`MORE`].
    more: Vec<(&'static str, String)>,
}

/// What only some programs want: its name in a profile, and its names in a secret.
const MORE: [(&str, &[&str]); 7] = [
    ("auth_version", &["auth_version", "vault_s3_auth_version"]),
    ("signature_version", &["signature_version", "vault_s3_signature_version"]),
    ("object_lock", &["object_lock", "bucket_object_lock"]),
    ("manifest_suffix", &["manifest_suffix", "use_manifest_suffix"]),
    ("ssl_cert", &["ssl_cert", "vault_s3_ssl_cert"]),
    ("nfs_export", &["nfs_export", "vault_storage_nfs_export"]),
    ("max_pool_connections", &["max_pool_connections", "vault_s3_max_pool_connections"]),
];

impl Credentials {
    /// A secret's payload: a JSON object with short keys, or with the vault's.
    pub(super) fn parse(payload: &[u8]) -> Result<Self> {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(payload) else {
            return no("the secret is not a JSON object");
        };
        let text = |names: &[&str]| -> Option<String> {
            let found = names.iter().filter_map(|name| fields.get(*name)?.as_str());
            found.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
        };
        let flag = |names: &[&str]| -> bool {
            let found = names.iter().find_map(|name| fields.get(*name));
            !found.is_some_and(|value| match value {
                Value::Bool(flag) => !flag,
                Value::String(word) => matches!(word.to_lowercase().as_str(), "false" | "no" | "0"),
                _ => false,
            })
        };
        let required = |what: &str, names: &[&str]| match text(names) {
            Some(value) => Ok(value),
            None => no(format_args!("the secret has no {what}")),
        };
        let access_key = required(
            "access_key",
            &["access_key", "aws_access_key_id", "vault_s3_access_key_id", "vault_s3_access_key"],
        )?;
        let secret_key = required(
            "secret_key",
            &[
                "secret_key",
                "aws_secret_access_key",
                "vault_s3_secret_access_key",
                "vault_s3_secret_key",
            ],
        )?;
        let bucket = required("bucket", &["bucket", "bucket_name", "vault_s3_bucket"])?;
        let region = text(&["region", "region_name", "vault_s3_region_name"]);
        let tls = flag(&["ssl", "vault_s3_ssl"]);
        let endpoint = text(&["endpoint_url", "endpoint", "vault_s3_endpoint_url"]);
        let endpoint = endpoint.map(|url| match url.contains("://") {
            true => url,
            false if tls => format!("https://{url}"),
            false => format!("http://{url}"),
        });
        // These end in an option list and on a command line.
        check("bucket", &bucket, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))?;
        if let Some(region) = &region {
            check("region", region, |c| c.is_ascii_alphanumeric() || c == '-')?;
        }
        if let Some(url) = &endpoint {
            // No "@" either: a password in a URL would be seen on the command line.
            let plain =
                |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '@' | '\\' | '"' | '\'');
            check("endpoint_url", url, plain)?;
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return no("the secret's endpoint_url is neither http nor https");
            }
        }
        let environment = |c: char| c.is_ascii_graphic();
        check("access_key", &access_key, environment)?;
        check("secret_key", &secret_key, environment)?;
        Ok(Credentials {
            access_key: Secret::new(access_key),
            secret_key: Secret::new(secret_key),
            bucket,
            region,
            endpoint,
            verify_tls: flag(&["ssl_verify", "vault_s3_ssl_verify"]),
            more: more(&fields)?,
        })
    }

    /// The same as a payload: to mount again without asking for the secret.
    pub(crate) fn to_payload(&self) -> Secret {
        let mut fields = Map::new();
        for (name, value) in [
            ("access_key", Some(self.access_key.reveal())),
            ("secret_key", Some(self.secret_key.reveal())),
            ("bucket", Some(self.bucket.as_str())),
            ("region", self.region.as_deref()),
            ("endpoint_url", self.endpoint.as_deref()),
        ] {
            fields.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        fields.insert("ssl_verify".into(), self.verify_tls.into());
        let more = self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        fields.extend(more);
        Secret::new(Value::Object(fields).to_string())
    }

    /// What a profile may ask for of a secret, by name.
    pub(crate) fn values(&self) -> Vec<(&'static str, Secret)> {
        let word = |is_so: bool| if is_so { "true" } else { "false" }.to_owned();
        let flag = |is_set: bool| is_set.then(String::new);
        let endpoint = self.endpoint.clone();
        let ssl = !endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
        let mut values =
            vec![("access_key", self.access_key.clone()), ("secret_key", self.secret_key.clone())];
        for (name, value) in [
            ("bucket", Some(self.bucket.clone())),
            ("ssl", Some(word(ssl))),
            ("ssl_verify", Some(word(self.verify_tls))),
            ("with_endpoint", flag(endpoint.is_some())),
            ("endpoint", endpoint),
            ("region", self.region.clone()),
            ("insecure", flag(!self.verify_tls)),
        ] {
            values.extend(value.map(|value| (name, Secret::new(value))));
        }
        values.extend(self.more.iter().map(|(name, value)| (*name, Secret::new(value.clone()))));
        values
    }

    /// Where the bucket is, to be compared.
    pub(crate) fn storage(&self) -> String {
        format!("{}/{}", self.endpoint.as_deref().unwrap_or("default"), self.bucket)
    }

    /// `text` without the values that only the daemon may know.
    pub(crate) fn blank(&self, text: &str) -> String {
        self.secret_key.blank(&self.access_key.blank(text))
    }
}

fn more(fields: &Map<String, Value>) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for (name, names) in MORE {
        let value = match names.iter().find_map(|name| fields.get(*name)) {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        if !value.is_empty() {
            check(name, &value, |c| c.is_ascii_graphic())?;
            found.push((name, value));
        }
    }
    Ok(found)
}

fn check(what: &str, value: &str, allowed: impl Fn(char) -> bool) -> Result<()> {
    if value.starts_with('-') || value.len() > 1024 || !value.chars().all(allowed) {
        return no(format_args!("the secret's {what} is not a usable {what}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = r#"{"access_key":"AK","secret_key":"SK","bucket":"b","region":"r-1",
        "endpoint_url":"http://127.0.0.1:9000","ssl_verify":"false"}"#;

    #[test]
    fn short_keys_and_the_vaults_are_read() {
        let short = Credentials::parse(SHORT.as_bytes()).expect("complete");
        assert_eq!(short.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert!(!short.verify_tls);
        let vault = br#"{"vault_s3_access_key_id":"AK","vault_s3_secret_access_key":"SK",
            "vault_s3_bucket":"b","vault_s3_endpoint_url":"s3.example.com","vault_s3_ssl":true}"#;
        let vault = Credentials::parse(vault).expect("complete");
        assert_eq!(vault.endpoint.as_deref(), Some("https://s3.example.com"));
        assert!(vault.verify_tls && vault.region.is_none());
        assert_eq!(vault.blank("AK SK b"), "***REDACTED*** ***REDACTED*** b");
    }

    #[test]
    fn what_is_kept_of_a_secret_is_the_same_secret() {
        let payload = br#"{"access_key":"AK","secret_key":"SK","bucket":"b","ssl":false,
            "endpoint_url":"s3.example.com","ssl_verify":false,"bucket_object_lock":true,
            "vault_s3_max_pool_connections":1000}"#;
        let first = Credentials::parse(payload).expect("complete");
        let again = Credentials::parse(first.to_payload().reveal().as_bytes()).expect("complete");
        let values = |credentials: &Credentials| -> Vec<(&'static str, String)> {
            let values = credentials.values();
            values.into_iter().map(|(name, value)| (name, value.reveal().to_owned())).collect()
        };
        assert_eq!(values(&first), values(&again));
        assert!(values(&first).contains(&("object_lock", "true".to_owned())));
        assert!(values(&first).contains(&("max_pool_connections", "1000".to_owned())));
    }

    #[test]
    fn a_secret_that_could_leave_its_option_is_refused() {
        for (from, to) in [
            ("\"b\"", "\"b,allow_other\""),
            ("\"b\"", "\"-f\""),
            ("\"b\"", "\"\""),
            ("r-1", "r,x"),
            ("http://127", "file://127"),
            (":9000", ":9000,x=y"),
            ("//127", "//user:SK@127"),
            ("\"SK\"", "\"a b\""),
            ("\"SK\"", "5"),
        ] {
            let why = Credentials::parse(SHORT.replace(from, to).as_bytes());
            let why = why.err().map(|why| why.0).unwrap_or_default();
            assert!(why.contains("credentials"), "{to} was accepted");
            assert!(!why.contains("SK"), "the secret stands in {why:?}");
        }
        assert!(Credentials::parse(b"[]").is_err());
    }
}
