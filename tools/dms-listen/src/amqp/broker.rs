//! Which brokers there are: what `DMS_RABBITMQ_URL` says.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dms_cli::{ESCAPE_PASSWORD, unescape};
use dms_wire::Secret;
use url::Url;

use crate::amqp::parameters::Parameters;

/// One broker, and how to speak to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Broker {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Login,
    pub(crate) vhost: String,
    /// Seconds between heartbeats; the broker may want them more often. 0: none.
    pub(crate) heartbeat: u16,
    pub(crate) connect_timeout: Duration,
    /// How often a caller tries before it gives up; a listener never does.
    pub(crate) attempts: u32,
    /// How long to wait before the first new attempt.
    pub(crate) retry_delay: Duration,
}

/// How we say who we are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Login {
    Plain {
        user: String,
        password: Secret,
    },
    /// By the client certificate.
    External,
}

/// What `amqps` needs beyond the system's authorities.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Tls {
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate and its key, PEM.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// The name that the broker's certificate must have; absent: the host.
    pub(crate) name: Option<String>,
}

/// What is wrong with the list of brokers. Never quotes it: it has passwords in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadUrl(String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMS_RABBITMQ_URL: {}", self.0)
    }
}

impl fmt::Display for Broker {
    /// Without its password: fit for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        if host.contains(':') {
            write!(f, "[{host}]:{}", self.port)
        } else {
            write!(f, "{host}:{}", self.port)
        }
    }
}

impl Broker {
    /// Reads a list of brokers: URLs with commas between them, or one URL with several
    /// `user:password@host:port` before its path, as OpenStack's services have it.
    ///
    /// # Errors
    /// What is wrong, and in which of them.
    pub(crate) fn list(text: &str) -> Result<Vec<Broker>, BadUrl> {
        let mut urls: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match (part.contains("://"), urls.last()) {
                (true, _) => urls.push(part.to_owned()),
                (false, Some(first)) => {
                    let scheme = first.split("://").next().unwrap_or_default();
                    urls.push(format!("{scheme}://{part}"));
                }
                (false, None) => {
                    return Err(BadUrl("does not begin with amqp:// or amqps://".into()));
                }
            }
        }
        let mut brokers = Vec::new();
        // Path and query of the last one are those of the ones before it that have neither.
        let mut tail = String::new();
        for (number, url) in urls.iter().enumerate().rev() {
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            let whole = match rest.find(['/', '?']) {
                Some(at) => {
                    tail = rest[at..].to_owned();
                    url.clone()
                }
                None => format!("{url}{tail}"),
            };
            let broker = read(&whole).map_err(|why| match urls.len() {
                1 => BadUrl(why),
                _ => BadUrl(format!("broker {}: {why}", number + 1)),
            })?;
            brokers.insert(0, broker);
        }
        let names_user = |url: &String| url.contains('@');
        if let (Some(at), true) =
            (urls.iter().position(|url| !names_user(url)), urls.iter().any(names_user))
        {
            let text = "has no user, and others have: in a password, write , as %2C";
            return Err(BadUrl(format!("broker {} {text}", at + 1)));
        }
        if brokers.is_empty() { Err(BadUrl("names no broker".into())) } else { Ok(brokers) }
    }
}

fn read(text: &str) -> Result<Broker, String> {
    // The library's error is one of a few fixed sentences.
    let url = Url::parse(text).map_err(|why| format!("is no URL: {why}"))?;
    // Unescaped in a password, these end it, and what is left of it would be the host.
    let holds_host = |part: &str| part.contains('@');
    if url.fragment().is_some() || holds_host(url.path()) || url.query().is_some_and(holds_host) {
        return Err(ESCAPE_PASSWORD.into());
    }
    let tls = match url.scheme() {
        "amqp" | "rabbit" => None,
        "amqps" => Some(Tls::default()),
        _ => return Err("is neither amqp:// nor amqps://".into()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let vhost = match url.path() {
        "" | "/" => "/".to_owned(),
        path => unescape(&path[1..], "the vhost")?,
    };
    if vhost.len() > 255 || url.username().len() > 255 {
        return Err("a vhost or user name is longer than 255 bytes".into());
    }
    let parameters = Parameters::read(&url, tls)?;
    Ok(Broker {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(if parameters.tls.is_some() { 5671 } else { 5672 }),
        login: if parameters.is_external { Login::External } else { plain_login(&url)? },
        tls: parameters.tls,
        vhost,
        heartbeat: parameters.heartbeat,
        connect_timeout: parameters.connect_timeout,
        attempts: parameters.attempts,
        retry_delay: parameters.retry_delay,
    })
}

fn plain_login(url: &Url) -> Result<Login, String> {
    let user = match url.username() {
        "" => "guest".to_owned(),
        user => unescape(user, "the user name")?,
    };
    let password = unescape(url.password().unwrap_or("guest"), "the password")?;
    Ok(Login::Plain { user, password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Broker {
        let mut brokers = Broker::list(text).expect("a good URL");
        assert_eq!(brokers.len(), 1);
        brokers.remove(0)
    }

    fn login(user: &str, password: &str) -> Login {
        Login::Plain { user: user.into(), password: Secret::new(password) }
    }

    #[test]
    fn a_url_is_read_as_rabbitmq_and_pika_read_it() {
        let broker = one("amqp://dms:p%40ss%2Fw@10.0.0.1:5673/vh%2F1?heartbeat=5&retry_delay=0.5");
        assert_eq!(broker.to_string(), "10.0.0.1:5673");
        assert_eq!(broker.login, login("dms", "p@ss/w"));
        assert_eq!((broker.vhost.as_str(), broker.heartbeat), ("vh/1", 5));
        assert_eq!(broker.retry_delay, Duration::from_millis(500));
    }

    #[test]
    fn what_is_left_out_has_the_usual_default() {
        for text in ["amqp://h", "amqp://h/", "amqp://h/%2F", "rabbit://h:5672/"] {
            let broker = one(text);
            assert_eq!((broker.vhost.as_str(), broker.port), ("/", 5672), "{text}");
            assert_eq!(broker.login, login("guest", "guest"));
        }
        assert_eq!(one("amqps://h").port, 5671);
        assert_eq!(one("amqp://[::1]:7").to_string(), "[::1]:7");
    }

    #[test]
    fn several_brokers_are_several_urls_or_one_of_openstacks() {
        let names = |text: &str| -> Vec<String> {
            Broker::list(text)
                .expect("a good list")
                .iter()
                .map(|b| format!("{b}{}", b.vhost))
                .collect()
        };
        assert_eq!(names("amqp://a/v,amqp://b:1/w"), ["a:5672v", "b:1w"]);
        assert_eq!(names("rabbit://u:p@a:1,u:p@b:2/v?heartbeat=3"), ["a:1v", "b:2v"]);
    }

    #[test]
    fn certificates_are_for_amqps() {
        let broker = one("amqps://h?cacertfile=/ca&certfile=/c&keyfile=/k&auth_mechanism=EXTERNAL");
        let tls = broker.tls.expect("amqps");
        assert_eq!(tls.ca, Some("/ca".into()));
        assert_eq!(tls.identity, Some(("/c".into(), "/k".into())));
        assert_eq!(broker.login, Login::External);
        for bad in
            ["amqp://h?cacertfile=/ca", "amqps://h?certfile=/c", "amqps://h?verify=verify_none"]
        {
            assert!(Broker::list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for bad in [
            "",
            ",",
            "h:5672",
            "http://u:hunter2@h",
            "amqp://u:hunter2@h:99999",
            "amqp://u:hunter2@",
            "amqp://u:hunter2@h?heartbeat=x",
            "amqp://u:hunter2@h?hunter2",
            "amqp://u:%ff@h",
            "amqp://u:1,2hunter2@h",
            "amqp://u:1#hunter2@h",
            "amqp://u:1/hunter2@h",
            "amqp://u:1?hunter2@h",
            "amqp://u:hunter2@h?heartbeat=70000",
            "amqp://ok,amqp://u:hunter2@h:x",
        ] {
            let why = Broker::list(bad).expect_err(bad).to_string();
            assert!(!why.contains("hunter2") && !why.is_empty(), "{bad}: {why}");
        }
        assert!(!format!("{:?}", one("amqp://u:hunter2@h")).contains("hunter2"));
    }
}
