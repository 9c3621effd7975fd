//! The certificates of a broker that takes TLS, made by openssl(1).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Broker;
use crate::run::run;

/// No section with extensions: each certificate gets those that it is told.
const CONFIG: &str = "[req]\ndistinguished_name = dn\n[dn]\n";

impl Broker {
    /// A file of a broker that takes TLS: `ca.pem`, the authority; `client.pem` and `client.key`,
    /// with which it lets clients in; `stranger.pem` and `stranger.key`, of another authority.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    pub(super) fn make_certificates(&self) {
        fs::create_dir(self.root.join("tls")).expect("room for it");
        fs::write(self.tls_file("openssl.conf"), CONFIG).expect("room for it");
        let authority = "basicConstraints=critical,CA:TRUE";
        let client = "extendedKeyUsage=clientAuth";
        self.make_certificate("ca", None, &[authority]);
        self.make_certificate("other", None, &[authority]);
        let server = ["extendedKeyUsage=serverAuth", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
        self.make_certificate("server", Some("ca"), &server);
        self.make_certificate("client", Some("ca"), &[client]);
        self.make_certificate("stranger", Some("other"), &[client]);
    }

    fn make_certificate(&self, name: &str, authority: Option<&str>, extensions: &[&str]) {
        let file = |name: &str, kind: &str| self.tls_file(&format!("{name}.{kind}"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-days", "2", "-noenc", "-subj", &format!("/CN=dms-{name}")]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-config"]);
        openssl.arg(file("openssl", "conf"));
        openssl.arg("-keyout").arg(file(name, "key")).arg("-out").arg(file(name, "pem"));
        for extension in extensions {
            openssl.args(["-addext", extension]);
        }
        if let Some(ca) = authority {
            openssl.arg("-CA").arg(file(ca, "pem")).arg("-CAkey").arg(file(ca, "key"));
        }
        run(&mut openssl, b"").expect(0);
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
