//! Projects, users, the catalogue, tokens and secrets.

use serde_json::{Value, json};

use super::OpenStack;

/// The administrator's password.
pub(super) const ADMIN_PASSWORD: &str = "the-admin-of-the-lab";

impl OpenStack {
    /// A new token of the user: `worker` for `svc`, `intruder` for `other`.
    #[track_caller]
    pub fn token(&self, user: &str) -> String {
        let project = match user {
            "worker" => "svc",
            "intruder" => "other",
            _ => "admin",
        };
        let password = if user == "admin" { ADMIN_PASSWORD } else { "pw-of-the-user" };
        let default = json!({"id": "default"});
        let auth = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user":
                {"name": user, "domain": default, "password": password}}},
            "scope": {"project": {"name": project, "domain": default}},
        }});
        let answer = self.ask("POST", &self.keystone("/auth/tokens"), "", &auth);
        answer["token"].as_str().expect("it is new").to_owned()
    }

    /// Makes the token worthless.
    #[track_caller]
    pub fn revoke(&self, token: &str) {
        self.ask("DELETE", &self.keystone("/auth/tokens"), token, &Value::Null);
    }

    /// Stores a secret as `worker`: what Barbican is told of it, such as its `payload`. Returns its
    /// id.
    #[track_caller]
    pub fn store(&self, secret: &Value) -> String {
        let url = format!("{}/v1/secrets", self.barbican_url());
        let answer = self.ask("POST", &url, &self.token("worker"), secret);
        let reference = answer["body"]["secret_ref"].as_str().expect("it was stored");
        reference.rsplit('/').next().unwrap_or_default().to_owned()
    }

    fn keystone(&self, path: &str) -> String {
        format!("{}{path}", self.auth_url())
    }

    /// Two projects with a user each, and Barbican in the catalogue.
    pub(super) fn fill(&self) {
        let admin = self.token("admin");
        let make = |path: &str, kind: &str, what: Value| {
            let answer = self.ask("POST", &self.keystone(path), &admin, &json!({ kind: what }));
            answer["body"][kind]["id"].as_str().expect("it was made").to_owned()
        };
        let roles = self.ask("GET", &self.keystone("/roles?name=member"), &admin, &Value::Null);
        let member = roles["body"]["roles"][0]["id"].as_str().expect("Keystone has it").to_owned();
        let creator = make("/roles", "role", json!({"name": "creator"}));
        for (project, user) in [("svc", "worker"), ("other", "intruder")] {
            let domain = "default";
            let project =
                make("/projects", "project", json!({"name": project, "domain_id": domain}));
            let user = json!({"name": user, "domain_id": domain, "password": "pw-of-the-user"});
            let user = make("/users", "user", user);
            for role in [&member, &creator] {
                let grant = format!("/projects/{project}/users/{user}/roles/{role}");
                self.ask("PUT", &self.keystone(&grant), &admin, &Value::Null);
            }
        }
        let service =
            make("/services", "service", json!({"name": "barbican", "type": "key-manager"}));
        for (interface, url) in [("public", self.barbican_url()), ("internal", self.plain_url())] {
            let endpoint = json!({"service_id": service, "interface": interface, "url": url,
                "region_id": "one"});
            make("/endpoints", "endpoint", endpoint);
        }
    }
}
