//! Key managers that are hostile or broken, and requests that name another one. They are stand-ins:
//! what a real one does is in barbican.rs.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dms_tests::{Lab, Run, Witness, answer, run};
use serde_json::{Value, json};

const TOKEN: &str = "gAAAA-the-token-of-this-test";
const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// How long a request may take here, in seconds, and when the test has to know.
const BOUND: &str = "2";
const SOON: Duration = Duration::from_secs(20);

fn request(lab: &Lab, reference: &str) -> Value {
    let mut request = lab.request("mount", 1, "t1");
    request["backup_target"]["secret_ref"] = json!(reference);
    request["keystone_token"] = json!(TOKEN);
    request
}

/// A dms-mount with this key manager.
fn mount(lab: &Lab, url: &str) -> Command {
    let mut command = lab.command("dms-mount", &[]);
    command.env("DMS_BARBICAN_URL", url).env("DMS_LOG_LEVEL", "TRACE");
    command
}

/// Asks for a secret of that key manager; neither the token nor a word of the peer's is repeated.
#[track_caller]
fn ask(lab: &Lab, command: &mut Command, url: &str) -> (String, Run) {
    let line = format!("{}\n", request(lab, &format!("{url}/v1/secrets/{ID}")));
    let run = run(command.env("DMS_REQUEST_TIMEOUT", BOUND), line.as_bytes());
    let answer = run.line();
    assert_eq!(answer["error_code"], "credentials", "{run}");
    for word in [TOKEN, "words of the peer"] {
        assert!(!run.to_string().contains(word), "{word} in {run}");
    }
    (answer["error_msg"].as_str().unwrap_or_default().to_owned(), run)
}

/// References to `there`, or that some program could take for one, where `here` is the key manager.
fn hostile_references(here: u16, there: u16) -> Vec<String> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let fill = |line: &str| {
        line.replace("PATH", &format!("v1/secrets/{ID}"))
            .replace("THERE", &address(there))
            .replace("HERE", &address(here))
            .replace("PORT", &there.to_string())
    };
    include_str!("../fixtures/hostile-references.txt").lines().map(fill).collect()
}

#[test]
fn no_reference_leads_to_a_host_that_a_request_names() {
    let lab = Lab::new();
    let (here, there) = (Witness::saying(answer(404, "")), Witness::saying(answer(404, "")));
    let url = here.url();
    let keystone = Witness::saying(answer(
        200,
        &json!({"catalog": [{"type": "key-manager", "endpoints": [
            {"interface": "public", "region": "one", "url": url}]}]})
        .to_string(),
    ));
    let references = hostile_references(here.port(), there.port());
    assert!(references.len() >= 100, "{}", references.len());
    let lines: String =
        references.iter().map(|reference| format!("{}\n", request(&lab, reference))).collect();
    for keystone in [None, Some(&keystone)] {
        let mut command = mount(&lab, &url);
        if let Some(keystone) = keystone {
            command.env_remove("DMS_BARBICAN_URL").env("DMS_AUTH_URL", keystone.url());
        }
        let run = run(&mut command, lines.as_bytes());
        let answers = run.expect(1).lines();
        assert_eq!(answers.len(), references.len(), "{run}");
        for (reference, answer) in references.iter().zip(&answers) {
            assert_eq!(answer["error_code"], "credentials", "{reference}: {answer}");
            let text = answer["error_msg"].as_str().unwrap_or_default();
            assert!(text.contains("secret_ref is"), "{reference}: {text}");
            assert!(!text.contains("password"), "{text}");
        }
        assert!(!run.to_string().contains(TOKEN), "{run}");
        assert_eq!(there.connections(), 0, "somebody came");
        assert_eq!(here.connections(), 0, "something was sent");
    }
    // The token has gone to Keystone, for those that are spelled well, and nothing but it.
    assert!(keystone.heard().contains(TOKEN) && !keystone.heard().contains(ID));
    // And the stand-in can be reached.
    ask(&lab, &mut mount(&lab, &url), &url);
    assert_eq!(here.connections(), 1);
    assert!(here.heard().starts_with(&format!("GET /v1/secrets/{ID} HTTP/1.1\r\n")));
}

#[test]
fn a_redirect_is_not_followed() {
    let lab = Lab::new();
    for status in [301, 302, 303, 307, 308] {
        let there = Witness::saying(answer(200, "{}"));
        let to = format!("{}/v1/secrets/{ID}", there.url());
        let here = Witness::saying(format!(
            "HTTP/1.1 {status} x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        ));
        let (text, _) = ask(&lab, &mut mount(&lab, &here.url()), &here.url());
        assert!(text.contains(&format!("redirects elsewhere ({status})")), "{text}");
        assert!(here.heard().contains(TOKEN));
        assert_eq!(there.connections(), 0, "the redirect was followed");
        // A peer may end any connection after an answer: each question has its own.
        assert_eq!(here.connections(), 2);
        // Keystone's neither.
        let mut command = mount(&lab, "");
        let (text, _) = ask(&lab, command.env("DMS_AUTH_URL", here.url()), &here.url());
        assert!(text.contains("redirects elsewhere"), "{text}");
        assert_eq!(there.connections(), 0, "the redirect was followed");
    }
}

#[test]
fn proxy_variables_are_ignored() {
    let lab = Lab::new();
    let (proxy, here) = (Witness::saying(answer(200, "{}")), Witness::saying(answer(404, "")));
    let mut command = mount(&lab, &here.url());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, proxy.url()).env(name.to_lowercase(), proxy.url());
    }
    command.env("NO_PROXY", "").env("no_proxy", "");
    let (text, _) = ask(&lab, &mut command, &here.url());
    assert!(text.contains("not found"), "{text}");
    let secret = format!("https://127.0.0.1:{}", here.port());
    ask(&lab, command.env("DMS_BARBICAN_URL", &secret), &secret);
    assert_eq!((proxy.connections(), here.connections()), (0, 2));
}

#[test]
fn a_broken_key_manager_is_told_apart() {
    let lab = Lab::new();
    let active = json!({"status": "ACTIVE", "content_types": {"default": "text/plain"}});
    let flood = "X-Flood: words of the peer\r\n".repeat(100_000);
    for (said, words) in [
        (answer(500, "words of the peer"), "has failed (500)"),
        (answer(503, TOKEN), "has failed (503)"),
        (answer(418, "words of the peer"), "unexpected answer (418)"),
        (answer(429, ""), "unexpected answer (429)"),
        (answer(406, ""), "neither text nor bytes"),
        (answer(401, TOKEN), "Permission denied"),
        (answer(403, TOKEN), "Permission denied"),
        (answer(200, "words of the peer"), "not a JSON object"),
        (answer(200, &json!({"status": TOKEN}).to_string()), "is not active"),
        (answer(200, &json!({"status": "PENDING"}).to_string()), "is still pending"),
        (answer(200, &active.to_string()), "has no access_key"),
        (answer(200, &"[".repeat(60_000)), "not a JSON object"),
        ("words of the peer\r\n\r\n".to_owned(), "is not HTTP"),
        (format!("HTTP/1.1 200 {TOKEN}\r\nContent-Length: x\r\n\r\n"), "is not HTTP"),
        ("\u{1}\u{2}\u{3}".repeat(100), "is not HTTP"),
        (format!("HTTP/1.1 200 x\r\n{flood}\r\n"), "answer"),
        ("HTTP/1.1 200 x\r\nContent-Length: 100\r\n\r\nshort".to_owned(), "unable to ask"),
        (String::new(), "unable to ask"),
        (answer(200, &"x".repeat(65 * 1024)), "longer than 65536 bytes"),
    ] {
        let here = Witness::saying(said);
        let (text, _) = ask(&lab, &mut mount(&lab, &here.url()), &here.url());
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    let gone = Witness::saying("").url();
    let (text, _) = ask(&lab, &mut mount(&lab, &gone), &gone);
    assert!(text.contains("unable to ask") && text.contains("Connection refused"), "{text}");
    let nowhere = "http://kms.invalid";
    let (text, _) = ask(&lab, &mut mount(&lab, nowhere), nowhere);
    assert!(text.contains("kms.invalid"), "{text}");
}

#[test]
fn a_broken_keystone_is_told_apart() {
    let lab = Lab::new();
    let catalogue = |url: &str| {
        let endpoint = json!({"interface": "public", "region": "one", "url": url});
        answer(
            200,
            &json!({"catalog": [{"type": "key-manager", "endpoints": [endpoint]}]}).to_string(),
        )
    };
    for (said, words) in [
        (answer(500, TOKEN), "has failed (500)"),
        (answer(401, TOKEN), "Permission denied: the token is not valid for Keystone"),
        (answer(403, TOKEN), "Permission denied: the token may not read its catalogue"),
        (answer(404, ""), "unexpected answer (404)"),
        (answer(200, "words of the peer"), "is not a catalogue"),
        (answer(200, "{\"catalog\":[]}"), "no public key-manager endpoint"),
        (answer(200, &"[".repeat(5 << 20)), "longer than 4194304 bytes"),
        (catalogue(&format!("https://user:{TOKEN}@kms")), "is no plain URL"),
        (catalogue("https://kms/$(project_id)s"), "is no plain URL"),
    ] {
        let keystone = Witness::saying(said);
        let mut command = mount(&lab, "");
        let (text, _) = ask(&lab, command.env("DMS_AUTH_URL", keystone.url()), "http://kms");
        assert!(text.contains(words), "{words:?} is not in {text:?}");
        assert!(keystone.heard().starts_with("GET /v3/auth/catalog HTTP/1.1\r\n"));
    }
}

/// As fast as somebody who wants to be waited for: it is never silent for long.
fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_slow_answer_ends_with_the_request() {
    let lab = Lab::new();
    let silent = |_: &str, stream: &mut TcpStream| {
        let _ = std::io::copy(stream, &mut std::io::sink());
    };
    let head = |_: &str, stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nX: ");
        drip(stream, b"x");
    };
    let headers = |_: &str, stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\n");
        drip(stream, b"X: y\r\n");
    };
    let body = |_: &str, stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 60000\r\n\r\n");
        drip(stream, b"1");
    };
    let chunks = |_: &str, stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n");
        drip(stream, b"1\r\n1\r\n");
    };
    // A TLS record of 16 KiB, a byte at a time.
    let handshake = |_: &str, stream: &mut TcpStream| {
        let _ = stream.write_all(&[22, 3, 3, 64, 0, 2, 0, 63, 0]);
        drip(stream, &[0]);
    };
    let deaf = Witness::start_deaf(handshake);
    let tls = format!("https://127.0.0.1:{}", deaf.port());
    let slow = [
        Witness::start(silent),
        Witness::start(head),
        Witness::start(headers),
        Witness::start(body),
        Witness::start(chunks),
    ];
    for url in slow.iter().map(Witness::url).chain([tls]) {
        let start = Instant::now();
        let (text, _) = ask(&lab, &mut mount(&lab, &url), &url);
        assert!(text.starts_with("Failed to fetch credentials: timeout: "), "{text}");
        assert_eq!(text.matches("timeout").count(), 1, "{text}");
        assert!(start.elapsed() < SOON, "{url} was waited for: {:?}", start.elapsed());
    }
}

#[test]
fn a_slow_answer_ends_with_the_callers_deadline() {
    let lab = Lab::new();
    let here = Witness::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 60000\r\n\r\n");
        drip(stream, b"1");
    });
    let mut request = request(&lab, &format!("{}/v1/secrets/{ID}", here.url()));
    let uptime = fs::read_to_string("/proc/uptime").expect("/proc is there");
    let now: f64 = uptime.split(' ').next().unwrap_or_default().parse().expect("a number");
    request["deadline"] = json!(now + 1.5);
    let start = Instant::now();
    let run = run(&mut mount(&lab, &here.url()), format!("{request}\n").as_bytes());
    let text = run.line()["error_msg"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("timeout") && text.contains("credentials"), "{run}");
    assert!(here.connections() == 1 && start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_body_of_a_gibibyte_is_not_read() {
    let lab = Lab::new();
    let here = Witness::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 1073741824\r\n\r\n");
        let block = [b'x'; 1 << 16];
        while stream.write_all(&block).is_ok() {}
    });
    let start = Instant::now();
    let (text, _) = ask(&lab, &mut mount(&lab, &here.url()), &here.url());
    assert!(text.contains("longer than 65536 bytes"), "{text}");
    assert!(start.elapsed() < SOON);
}
