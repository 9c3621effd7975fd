//! What a broker that takes TLS has for it.

use std::path::PathBuf;

use super::Broker;
use crate::certificates;

impl Broker {
    /// A file of a broker that takes TLS: `ca.pem`, the authority; `client.pem` and `client.key`,
    /// with which it lets clients in; `stranger.pem` and `stranger.key`, of another authority.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    pub(super) fn make_certificates(&self) {
        certificates::make(&self.root.join("tls"));
    }

    pub(super) fn tls_conf(&self) -> String {
        let file = |name: &str| self.tls_file(name).display().to_string();
        format!(
            "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
            self.tls_port(),
            file("ca.pem"),
            file("server.pem"),
            file("server.key"),
        )
    }
}
