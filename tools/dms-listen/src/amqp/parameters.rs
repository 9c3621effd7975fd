//! What stands behind the `?` of a broker's URL: parameters, by RabbitMQ's names and by pika's.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::amqp::broker::Tls;

/// All of them, with the defaults of those that are not there.
pub(super) struct Parameters {
    pub(super) heartbeat: u16,
    pub(super) connect_timeout: Duration,
    pub(super) attempts: u32,
    pub(super) retry_delay: Duration,
    /// Whether the client's certificate says who we are.
    pub(super) is_external: bool,
    /// `None`: the broker is not spoken to by TLS.
    pub(super) tls: Option<Tls>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Parameters {
    /// Those of this URL.
    ///
    /// # Errors
    /// What is wrong; a value that may be a secret is not quoted.
    pub(super) fn read(url: &Url, tls: Option<Tls>) -> Result<Parameters, String> {
        let mut parameters = Parameters {
            heartbeat: 60,
            connect_timeout: Duration::from_secs(10),
            attempts: 1,
            retry_delay: Duration::from_secs(1),
            is_external: false,
            tls,
            certificate: None,
            key: None,
        };
        for (name, value) in url.query_pairs() {
            parameters.set(&name, &value)?;
        }
        let Parameters { tls, certificate, key, .. } = &mut parameters;
        match (tls, certificate.take(), key.take()) {
            (_, None, None) => {}
            (Some(tls), Some(certificate), Some(key)) => tls.identity = Some((certificate, key)),
            _ => return Err("certfile and keyfile go together".into()),
        }
        Ok(parameters)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "heartbeat" => {
                let seconds = u16::try_from(number(name, value)?);
                self.heartbeat = seconds.map_err(|_| "heartbeat is more than 65535 s")?;
            }
            "connection_attempts" => self.attempts = number(name, value)?.max(1),
            "retry_delay" => self.retry_delay = seconds(name, value)?,
            "connection_timeout" => {
                self.connect_timeout = Duration::from_millis(number(name, value)?.max(1).into());
            }
            "socket_timeout" => {
                self.connect_timeout = seconds(name, value)?.max(Duration::from_millis(1));
            }
            "cacertfile" | "certfile" | "keyfile" | "server_name_indication" => {
                self.set_tls(name, value)?;
            }
            "auth_mechanism" => match value.to_ascii_lowercase().as_str() {
                "external" => self.is_external = true,
                "plain" => {}
                _ => return Err("auth_mechanism is neither plain nor external".into()),
            },
            "verify" if value == "verify_peer" => {}
            // Of pika's, those that change nothing here.
            "channel_max"
            | "frame_max"
            | "locale"
            | "blocked_connection_timeout"
            | "stack_timeout"
            | "backpressure_detection"
            | "client_properties"
            | "tcp_options" => {}
            _ => return Err(refusal(name).into()),
        }
        Ok(())
    }

    fn set_tls(&mut self, name: &str, value: &str) -> Result<(), String> {
        let tls = self.tls.as_mut().ok_or_else(|| format!("{name} is for amqps:// only"))?;
        match name {
            "cacertfile" => tls.ca = Some(value.into()),
            "certfile" => self.certificate = Some(value.into()),
            "keyfile" => self.key = Some(value.into()),
            _ => tls.name = Some(value.to_owned()),
        }
        Ok(())
    }
}

fn refusal(name: &str) -> &'static str {
    match name {
        "verify" => "verify can only be verify_peer: the broker is always checked",
        "ssl_options" => "ssl_options is not understood: use cacertfile, certfile and keyfile",
        // Not quoted: a slip of the pen may put the password here.
        _ => "there is a parameter that dms does not know",
    }
}

fn number(name: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{name} is not a number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().and_then(dms_cli::seconds);
    seconds.ok_or_else(|| format!("{name} is not a number of seconds"))
}
