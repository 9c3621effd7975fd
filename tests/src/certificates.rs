//! The certificates of a service that takes TLS, made by openssl(1).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::run;

/// No section with extensions: each certificate gets those that it is told.
const CONFIG: &str = "[req]\ndistinguished_name = dn\n[dn]\n";

/// Makes this directory, and in it `ca`, an authority; `server` and `client`, of that authority;
/// `stranger`, of another: each a `.pem` and a `.key`.
pub(crate) fn make(dir: &Path) {
    fs::create_dir(dir).expect("room for it");
    fs::write(dir.join("openssl.conf"), CONFIG).expect("room for it");
    let authority = "basicConstraints=critical,CA:TRUE";
    let client = "extendedKeyUsage=clientAuth";
    make_one(dir, "ca", None, &[authority]);
    make_one(dir, "other", None, &[authority]);
    let server = ["extendedKeyUsage=serverAuth", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    make_one(dir, "server", Some("ca"), &server);
    make_one(dir, "client", Some("ca"), &[client]);
    make_one(dir, "stranger", Some("other"), &[client]);
}

fn make_one(dir: &Path, name: &str, authority: Option<&str>, extensions: &[&str]) {
    let file = |name: &str, kind: &str| dir.join(format!("{name}.{kind}"));
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
