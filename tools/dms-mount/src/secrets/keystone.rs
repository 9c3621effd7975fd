//! Keystone, asked for one thing: where the key manager is, by the catalogue of a token.

use dms_cli::OpenStack;
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::http::Session;
use super::{Result, no};

/// The catalogue of a large cloud, and more, in bytes.
const MAX_CATALOGUE: u64 = 4 << 20;

/// Keystone, and which of the endpoints in its catalogues are for us.
pub(super) struct Keystone {
    /// With the version.
    at: Endpoint,
    interface: String,
    region: Option<String>,
}

#[derive(Deserialize)]
struct Catalogue {
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    interface: String,
    region: Option<String>,
    url: String,
}

impl Keystone {
    pub(super) fn new(at: Endpoint, settings: &OpenStack) -> Self {
        // Operators write it either way.
        let root = at.without("/v3");
        let path = format!("{}/v3", root.path());
        Keystone {
            at: root.with_path(path),
            interface: settings.interface.clone(),
            region: settings.region.clone(),
        }
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Endpoint {
        &self.at
    }

    /// Where the key manager is, as far as this token is concerned.
    pub(super) fn key_manager(&self, session: &Session) -> Result<Endpoint> {
        let at = &self.at;
        let answer = session.get(at, "/auth/catalog", "application/json", MAX_CATALOGUE)?;
        match answer.status {
            200 => self.choose(&answer.body),
            401 => no("Permission denied: the token is not valid for Keystone (401)"),
            403 => no("Permission denied: the token may not read its catalogue (403)"),
            _ => answer.unexpected(at),
        }
    }

    fn choose(&self, body: &[u8]) -> Result<Endpoint> {
        let Ok(Catalogue { catalog }) = serde_json::from_slice(body) else {
            return no(format_args!("the answer of {} is not a catalogue", self.at));
        };
        let listed = catalog.iter().filter(|service| service.kind == "key-manager");
        let mut urls: Vec<&str> = listed
            .flat_map(|service| &service.endpoints)
            .filter(|endpoint| endpoint.interface == self.interface)
            .filter(|endpoint| self.region.is_none() || endpoint.region == self.region)
            .map(|endpoint| endpoint.url.as_str())
            .collect();
        urls.dedup();
        match urls[..] {
            [url] => Endpoint::parse(url).map(|at| at.without("/v1")).or_else(|why| {
                no(format_args!("the catalogue's key-manager endpoint is no plain URL: {why}"))
            }),
            [] => no(format_args!(
                "the catalogue of the token has no {} key-manager endpoint{}",
                self.interface,
                self.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default(),
            )),
            _ => no("the catalogue of the token has several key-manager endpoints: \
                     set DMS_OS_REGION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keystone(url: &str, interface: &str, region: Option<&str>) -> Keystone {
        let settings = OpenStack {
            interface: interface.to_owned(),
            region: region.map(str::to_owned),
            ..OpenStack::default()
        };
        Keystone::new(Endpoint::parse(url).expect("it is plain"), &settings)
    }

    #[test]
    fn the_version_is_there_once() {
        for (url, with_version) in [
            ("https://ks:5000", "https://ks:5000/v3"),
            ("https://ks:5000/v3/", "https://ks:5000/v3"),
            ("https://ks/identity", "https://ks:443/identity/v3"),
            ("https://ks/identity/v3", "https://ks:443/identity/v3"),
        ] {
            assert_eq!(keystone(url, "public", None).at.to_string(), with_version);
        }
    }

    #[test]
    fn the_endpoint_of_the_interface_and_the_region_is_chosen() {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "region_id": region, "url": url});
        let catalogue = json!({"catalog": [
            {"type": "identity", "name": "keystone", "endpoints": [
                endpoint("public", "one", "https://ks")]},
            {"type": "key-manager", "name": "barbican", "endpoints": [
                endpoint("public", "one", "https://kms.one/v1/"),
                endpoint("internal", "one", "http://10.0.0.1:9311"),
                endpoint("public", "two", "https://kms.two/key-manager")]},
        ], "links": {}});
        let choose = |interface, region| {
            let keystone = keystone("https://ks", interface, region);
            keystone.choose(&serde_json::to_vec(&catalogue).expect("it is JSON"))
        };
        let chosen = |interface, region| choose(interface, region).expect("one").to_string();
        assert_eq!(chosen("public", Some("one")), "https://kms.one:443");
        assert_eq!(chosen("public", Some("two")), "https://kms.two:443/key-manager");
        assert_eq!(chosen("internal", None), "http://10.0.0.1:9311");
        let why = |interface, region| choose(interface, region).expect_err("none, or several").0;
        assert!(why("public", None).contains("DMS_OS_REGION"));
        assert!(why("admin", None).contains("no admin key-manager endpoint"));
        assert!(why("internal", Some("two")).ends_with("in two"));
        for odd in ["", "[]", "{}", r#"{"catalog":[{"type":"key-manager","endpoints":[{}]}]}"#] {
            let why = keystone("https://ks", "public", None).choose(odd.as_bytes());
            assert!(why.is_err_and(|why| why.0.contains("not a catalogue")), "{odd}");
        }
    }
}
