//! Secrets from a real Barbican, over TLS, with the tokens of a real Keystone.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use dms_tests::{Lab, OpenStack, Run, processes_with, run};
use serde_json::{Value, json};

/// A node, a cloud, and a secret in it that opens the node's bucket.
struct Case {
    lab: Lab,
    cloud: Arc<OpenStack>,
    /// The id of the good secret.
    id: String,
    token: String,
}

impl Case {
    fn new() -> Case {
        let (lab, cloud) = (Lab::new(), OpenStack::shared());
        let id = cloud.store(&json!({"name": "good", "payload": payload(&lab),
            "payload_content_type": "text/plain", "secret_type": "opaque"}));
        let token = cloud.token("worker");
        Case { lab, cloud, id, token }
    }

    /// A secret of the configured key manager.
    fn reference(&self, id: &str) -> String {
        format!("{}/v1/secrets/{id}", self.cloud.barbican_url())
    }

    fn request(&self, reference: &str, token: &str) -> Value {
        let mut request = self.lab.request("mount", 1, "t1");
        request["backup_target"]["secret_ref"] = json!(reference);
        request["keystone_token"] = json!(token);
        request
    }

    /// The pipeline of a node that knows the key manager and its authority, and is told more.
    fn pipeline(&self, more: &[(&str, &str)]) -> Command {
        let mut command = self.lab.pipeline_command();
        command.env("DMS_BARBICAN_URL", self.cloud.barbican_url());
        command.env("DMS_CA_FILE", self.cloud.tls_file("ca.pem"));
        command.env("DMS_LOG_LEVEL", "TRACE").envs(more.iter().copied());
        command
    }

    /// Sends a request; nothing that is said may have a token or a key in it.
    #[track_caller]
    fn send(&self, request: &Value, more: &[(&str, &str)]) -> Run {
        let run = run(&mut self.pipeline(more), format!("{request}\n").as_bytes());
        let token = request["keystone_token"].as_str().unwrap_or_default();
        let mut words = vec![&*self.token, "pw-of-the-user", "the-payload"];
        words.extend(self.lab.secrets());
        words.extend(Some(token).filter(|token| !token.is_empty()));
        for word in words {
            assert!(!run.to_string().contains(word), "{word} in {run}");
            let found = self.lab.shell(&format!("grep -rlF -e '{word}' state run lock; :"));
            assert_eq!(found.stdout, "", "{word} in a file after {run}");
        }
        run
    }

    /// Mounts, looks into the bucket, and unmounts.
    #[track_caller]
    fn works(&self, reference: &str, more: &[(&str, &str)]) -> Run {
        let mounted = self.send(&self.request(reference, &self.token), more);
        assert_eq!(mounted.line()["status"], "success", "{mounted}");
        assert_eq!(processes_with(&self.token), [], "somebody was given the token");
        let name = self.lab.mount_point("t1").join("of-the-job");
        fs::write(&name, "data").expect("it is mounted");
        self.lab.unmount(1, "t1");
        self.lab.assert_gone("t1");
        assert!(self.lab.object("of-the-job").exists(), "it was another bucket");
        mounted
    }

    /// Is refused, with these words.
    #[track_caller]
    fn fails(&self, request: &Value, more: &[(&str, &str)], words: &[&str]) {
        let run = self.send(request, more);
        let answer = run.line();
        assert_eq!(answer["error_code"], "credentials", "{run}");
        let text = answer["error_msg"].as_str().unwrap_or_default();
        for word in [&["Failed to fetch credentials: "], words].concat() {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        self.lab.assert_gone("t1");
    }
}

/// What opens the bucket of the lab.
fn payload(lab: &Lab) -> String {
    fs::read_to_string(lab.path("secrets/good")).expect("the lab has it")
}

#[test]
fn a_secret_in_barbican_is_mounted_by_any_form_of_its_reference() {
    let case = Case::new();
    let reference = case.reference(&case.id);
    let run = case.works(&reference, &[]);
    assert!(!run.stderr.contains("warning"), "{run}");
    case.works(&format!("{reference}/payload"), &[]);
    case.works(&format!("{reference}/"), &[]);
    // An operator may write the version, too.
    let url = format!("{}/v1/", case.cloud.barbican_url());
    case.works(&reference, &[("DMS_BARBICAN_URL", &url)]);
}

#[test]
fn the_key_manager_is_found_in_the_catalogue_of_the_token() {
    let case = Case::new();
    let auth_url = case.cloud.auth_url();
    let root = auth_url.trim_end_matches("/v3");
    let found = [("DMS_BARBICAN_URL", ""), ("DMS_AUTH_URL", root)];
    let reference = case.reference(&case.id);
    case.works(&reference, &found);
    let region = |region| [&found[..], &[("DMS_OS_REGION", region)]].concat();
    case.works(&reference, &region("one"));
    let request = case.request(&reference, &case.token);
    case.fails(&request, &region("two"), &["no public key-manager endpoint in two"]);
    let interface = |name| [&found[..], &[("DMS_OS_INTERFACE", name)]].concat();
    case.fails(&request, &interface("admin"), &["no admin key-manager endpoint"]);
    // The internal one has no TLS, and references to the public one are not of it.
    case.fails(&request, &interface("internal"), &["nothing was sent"]);
    let plain = format!("{}/v1/secrets/{}", case.cloud.plain_url(), case.id);
    let run = case.works(&plain, &interface("internal"));
    assert!(run.stderr.contains("dms-mount: warning: the key manager http://"), "{run}");
    let refused = case.request(&reference, "gAAAA-no-token-of-keystone");
    case.fails(&refused, &found, &["Permission denied", "not valid", "(401)"]);
}

#[test]
fn what_barbican_refuses_is_told_apart() {
    let case = Case::new();
    let reference = case.reference(&case.id);
    let bad = case.request(&reference, "gAAAA-no-token-of-keystone");
    case.fails(&bad, &[], &["Permission denied", "not valid", &case.id, "(401)"]);
    let revoked = case.cloud.token("worker");
    case.cloud.revoke(&revoked);
    let revoked = case.request(&reference, &revoked);
    case.fails(&revoked, &[], &["Permission denied", "not valid", "(401)"]);
    let intruder = case.request(&reference, &case.cloud.token("intruder"));
    case.fails(&intruder, &[], &["Permission denied", "may not read", &case.id, "(403)"]);
    let unknown = case.reference("00000000-0000-0000-0000-000000000000");
    let unknown = case.request(&unknown, &case.token);
    case.fails(&unknown, &[], &["secret 00000000-", "not found", "(404)"]);
    let mut none = case.request(&reference, "");
    none["keystone_token"] = Value::Null;
    case.fails(&none, &[], &["the request carries no token"]);
    for odd in ["", "with a space", "with\r\na: line", "k\u{f6}nig"] {
        let odd = case.request(&reference, odd);
        case.fails(&odd, &[], &["the request's token is not a usable token"]);
    }
    let nowhere = case.request(&reference, &case.token);
    case.fails(&nowhere, &[("DMS_BARBICAN_URL", "")], &["there is no key manager"]);
}

#[test]
fn a_secret_that_cannot_be_used_is_told_apart() {
    let case = Case::new();
    let empty = case.cloud.store(&json!({"name": "empty"}));
    let text = case.cloud.store(&json!({"name": "text", "payload": "the-payload",
        "payload_content_type": "text/plain"}));
    let partial = case.cloud.store(&json!({"name": "partial", "payload": "{\"bucket\":\"b\"}",
        "payload_content_type": "text/plain"}));
    let expired = case.cloud.store(&json!({"name": "expired", "payload": "the-payload",
        "payload_content_type": "text/plain", "expiration": "2100-01-01T00:00:00"}));
    case.cloud.sql(&format!(
        "UPDATE secrets SET expiration = '2020-01-01 00:00:00.000000' WHERE id = '{expired}';"
    ));
    let long = case.cloud.store(&json!({"name": "long", "payload": "1".repeat(19_000),
        "payload_content_type": "text/plain"}));
    for (id, words) in [
        (&empty, "has no payload"),
        (&text, "not a JSON object"),
        (&partial, "has no access_key"),
        (&expired, "expired"),
        (&long, "not a JSON object"),
    ] {
        case.fails(&case.request(&case.reference(id), &case.token), &[], &[words]);
    }
}

#[test]
fn json_that_is_stored_as_bytes_is_read_as_well() {
    let case = Case::new();
    let file = case.lab.path("secrets/good");
    let encoded = case.lab.shell(&format!("base64 -w0 <{}", file.display())).stdout;
    let id = case.cloud.store(&json!({"name": "bytes", "payload": encoded,
        "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64"}));
    case.works(&case.reference(&id), &[]);
}

#[test]
fn a_key_manager_that_cannot_be_verified_is_not_told_the_token() {
    let case = Case::new();
    let request = case.request(&case.reference(&case.id), &case.token);
    let other = case.cloud.tls_file("other.pem").display().to_string();
    case.fails(&request, &[("DMS_CA_FILE", "")], &["unable to trust", "certificate"]);
    case.fails(&request, &[("DMS_CA_FILE", &other)], &["unable to trust", "certificate"]);
    // The same server by another name.
    let elsewhere = case.cloud.barbican_url().replace("127.0.0.1", "127.0.0.2");
    let named = case.request(&format!("{elsewhere}/v1/secrets/{}", case.id), &case.token);
    let told = [("DMS_BARBICAN_URL", &*elsewhere)];
    case.fails(&named, &told, &["unable to trust", "mismatch"]);
    let run = case.works(
        &format!("{elsewhere}/v1/secrets/{}", case.id),
        &[("DMS_BARBICAN_URL", &elsewhere), ("DMS_CA_FILE", ""), ("DMS_TLS_INSECURE", "1")],
    );
    assert!(run.stderr.contains("dms-mount: warning: DMS_TLS_INSECURE is set"), "{run}");
}

#[test]
fn authorities_that_cannot_be_read_matter_to_those_who_need_them_only() {
    let case = Case::new();
    let reference = case.reference(&case.id);
    let mounted = case.send(&case.request(&reference, &case.token), &[]);
    assert_eq!(mounted.line()["status"], "success", "{mounted}");
    let file = case.lab.path("secrets/good").display().to_string();
    let mut second = case.request(&reference, &case.token);
    second["backup_target"]["id"] = json!("t2");
    for (path, words) in [("/nonexistent/ca.pem", "No such file"), (&*file, "no certificate")] {
        let told = [("DMS_CA_FILE", path)];
        let refused = case.send(&second, &told);
        assert_eq!(refused.line()["error_code"], "credentials", "{refused}");
        let text = format!("Failed to fetch credentials: unable to read DMS_CA_FILE {path}: ");
        assert!(refused.stdout.contains(&text) && refused.stdout.contains(words), "{refused}");
        let mut check = case.lab.command("dms-mount", &["check"]);
        check.env("DMS_BARBICAN_URL", case.cloud.barbican_url()).envs(told);
        let check = run(&mut check, b"");
        let text = format!("error: unable to read DMS_CA_FILE {path}: ");
        assert!(check.expect(1).stdout.contains(&text), "{check}");
    }
    let mut unmount = case.request(&reference, &case.token);
    unmount["action"] = json!("unmount");
    let run = case.send(&unmount, &[("DMS_CA_FILE", "/nonexistent/ca.pem")]);
    assert_eq!(run.line()["unmounted"], true, "{run}");
}

#[test]
fn check_asks_who_is_there_and_whether_they_can_be_trusted() {
    let case = Case::new();
    let check = |told: &[(&str, &str)]| {
        let mut command = case.lab.command("dms-mount", &["check"]);
        command.env("DMS_CA_FILE", case.cloud.tls_file("ca.pem")).envs(told.iter().copied());
        run(&mut command, b"")
    };
    let (barbican, keystone) = (case.cloud.barbican_url(), case.cloud.auth_url());
    let there = check(&[("DMS_BARBICAN_URL", &barbican)]);
    let text = format!("ok: the key manager {barbican} answers\n");
    assert!(there.expect(0).stdout.contains(&text), "{there}");
    let there = check(&[("DMS_AUTH_URL", &keystone)]);
    let text = format!("ok: Keystone {keystone} answers\n");
    assert!(there.expect(0).stdout.contains(&text), "{there}");
    let other = case.cloud.tls_file("other.pem").display().to_string();
    let stranger = check(&[("DMS_BARBICAN_URL", &barbican), ("DMS_CA_FILE", &other)]);
    let text = format!("error: unable to trust {barbican}: ");
    assert!(stranger.expect(1).stdout.contains(&text), "{stranger}");
    assert!(check(&[]).expect(0).stdout.contains("warning: neither DMS_BARBICAN_URL nor"));
}

#[test]
fn plain_http_is_for_a_key_manager_that_is_configured_so() {
    let case = Case::new();
    let plain_url = case.cloud.plain_url();
    let plain = format!("{plain_url}/v1/secrets/{}", case.id);
    let run = case.works(&plain, &[("DMS_BARBICAN_URL", &plain_url)]);
    assert!(run.stderr.contains("dms-mount: warning: DMS_BARBICAN_URL is plain http"), "{run}");
    case.fails(&case.request(&plain, &case.token), &[], &["nothing was sent"]);
    let downgraded = case.reference(&case.id).replace("https:", "http:");
    case.fails(&case.request(&downgraded, &case.token), &[], &["nothing was sent"]);
    let encrypted = case.request(&case.reference(&case.id), &case.token);
    case.fails(&encrypted, &[("DMS_BARBICAN_URL", &plain_url)], &["nothing was sent"]);
}

#[test]
fn a_second_job_needs_no_token_where_the_target_is_mounted() {
    let case = Case::new();
    let reference = case.reference(&case.id);
    let first = case.send(&case.request(&reference, &case.token), &[]);
    assert_eq!(first.line()["status"], "success", "{first}");
    let mut second = case.request(&reference, "");
    second["job"]["jobid"] = json!(2);
    second["keystone_token"] = Value::Null;
    let joined = case.send(&second, &[]);
    assert_eq!(joined.line()["reused_existing"], true, "{joined}");
    // By another form of the reference it is another secret, until it has been read.
    let other = format!("{reference}/payload");
    let mut third = case.request(&other, &case.token);
    third["job"]["jobid"] = json!(3);
    assert_eq!(case.send(&third, &[]).line()["reused_existing"], true);
}

#[test]
fn settings_that_are_no_good_are_named_and_not_quoted() {
    let case = Case::new();
    for (name, value, words) in [
        ("DMS_BARBICAN_URL", "https://u:the-payload@kms", "DMS_BARBICAN_URL is no plain URL"),
        ("DMS_BARBICAN_URL", "kms:9311", "DMS_BARBICAN_URL is no plain URL"),
        ("DMS_AUTH_URL", "https://ks/?the-payload", "DMS_AUTH_URL is no plain URL"),
        ("DMS_OS_INTERFACE", "publicURL", "DMS_OS_INTERFACE \"publicURL\" is not public"),
        ("DMS_TLS_INSECURE", "yes", "DMS_TLS_INSECURE \"yes\" is neither 0 nor 1"),
    ] {
        let mut command = case.lab.command("dms-mount", &["list"]);
        if name == "DMS_AUTH_URL" {
            command.env_remove("DMS_BARBICAN_URL");
        }
        let run = run(command.env(name, value), b"");
        run.expect(100);
        assert!(run.stderr.contains(words), "{run}");
        assert!(!run.stderr.contains("the-payload"), "{run}");
    }
}
