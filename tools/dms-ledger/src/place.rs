//! Where the ledger is: what `DMS_DB_URL` says.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dms_cli::{ESCAPE_PASSWORD, unescape};
use dms_wire::Secret;
use url::Url;

use crate::schema::{self, Dialect};

/// A file, or a database on a server.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Mysql(Server),
}

/// A database on a MySQL or MariaDB server, and who we are there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Instead of host and port.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) tls: Option<Tls>,
    pub(crate) connect_timeout: Duration,
}

/// How the server is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Tls {
    /// PEM; absent: the system's authorities.
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate and key, PKCS #12 without a password.
    pub(crate) identity: Option<PathBuf>,
    /// Whether any name in its certificate will do.
    pub(crate) any_name: bool,
}

impl fmt::Display for Place {
    /// Without user and password: fit for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sqlite(path) => write!(f, "{}", path.display()),
            Place::Mysql(server) => match &server.socket {
                Some(socket) => write!(f, "{} at {}", server.database, socket.display()),
                None => write!(f, "{} at {}:{}", server.database, server.host, server.port),
            },
        }
    }
}

impl Place {
    /// Reads the URL, in SQLAlchemy's spellings too.
    ///
    /// # Errors
    /// What is wrong with it; never its password.
    pub(crate) fn read(text: &str) -> Result<Place, String> {
        let (scheme, rest) = text.split_once("://").ok_or("is no URL")?;
        match scheme.split('+').next() {
            Some("sqlite") => sqlite(rest),
            Some("mysql" | "mariadb") => mysql(rest).map(Place::Mysql),
            _ => Err("is neither sqlite:///PATH nor mysql://USER:PASSWORD@HOST/DATABASE".into()),
        }
    }
}

impl Place {
    /// The words of its engine.
    pub(crate) fn dialect(&self) -> &'static Dialect {
        match self {
            Place::Sqlite(_) => &schema::SQLITE,
            Place::Mysql(_) => &schema::MYSQL,
        }
    }
}

/// `sqlite:///relative`, `sqlite:////absolute`. A ledger in memory would be another one in each
/// stage.
fn sqlite(rest: &str) -> Result<Place, String> {
    match rest.strip_prefix('/') {
        Some(path) if !path.is_empty() && path != ":memory:" => Ok(Place::Sqlite(path.into())),
        _ => Err("names no file: sqlite:///PATH, and a fourth slash for an absolute one".into()),
    }
}

fn mysql(rest: &str) -> Result<Server, String> {
    // Whatever driver Python would use, it is one scheme to us.
    let url = Url::parse(&format!("mysql://{rest}")).map_err(|why| format!("is no URL: {why}"))?;
    if url.fragment().is_some() || url.path().contains('@') {
        return Err(ESCAPE_PASSWORD.into());
    }
    let database = unescape(url.path().trim_start_matches('/'), "the database")?;
    if database.is_empty() || database.contains('/') {
        return Err("names no database: mysql://USER:PASSWORD@HOST/DATABASE".into());
    }
    let user = Some(url.username()).filter(|user| !user.is_empty());
    let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let mut server = Server {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(3306),
        socket: None,
        user: user.map(|user| unescape(user, "the user name")).transpose()?,
        password: match url.password() {
            Some(password) => Some(Secret::new(unescape(password, "the password")?)),
            None => None,
        },
        database,
        tls: None,
        connect_timeout: Duration::from_secs(10),
    };
    for (name, value) in url.query_pairs() {
        set(&mut server, &name, &value)?;
    }
    Ok(server)
}

/// A parameter, by the name that PyMySQL or a MySQL client has for it.
fn set(server: &mut Server, name: &str, value: &str) -> Result<(), String> {
    let is_on = || match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("{name} is neither true nor false")),
    };
    match name {
        "unix_socket" => server.socket = Some(value.into()),
        "ssl_ca" => server.tls.get_or_insert_default().ca = Some(value.into()),
        "ssl_identity" => server.tls.get_or_insert_default().identity = Some(value.into()),
        "ssl" | "ssl_verify_cert" if is_on()? => {
            server.tls.get_or_insert_default();
        }
        "ssl" => {}
        "ssl_verify_identity" | "ssl_check_hostname" => {
            let any_name = !is_on()?;
            server.tls.get_or_insert_default().any_name = any_name;
        }
        "ssl_mode" | "ssl-mode" => match value.to_ascii_uppercase().as_str() {
            "DISABLED" => {}
            "REQUIRED" | "VERIFY_IDENTITY" => {
                server.tls.get_or_insert_default();
            }
            "VERIFY_CA" => server.tls.get_or_insert_default().any_name = true,
            _ => return Err(format!("{name} is DISABLED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY")),
        },
        "connect_timeout" => match value.parse::<u32>() {
            Ok(seconds @ 1..) => server.connect_timeout = Duration::from_secs(seconds.into()),
            _ => return Err("connect_timeout is not a number of seconds".into()),
        },
        // The ledger speaks utf8mb4, commits by itself and loads no files, whatever these say.
        "charset" | "use_unicode" | "autocommit" | "local_infile" | "read_timeout"
        | "write_timeout" => {}
        "ssl_verify_cert" => return Err("ssl_verify_cert can only be true".into()),
        "ssl_cert" | "ssl_key" => {
            return Err(format!("{name} is not understood: give both as PKCS #12, ssl_identity"));
        }
        // Not quoted: a slip of the pen may put the password here.
        _ => return Err("has a parameter that dms does not know".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        match Place::read(url) {
            Ok(Place::Mysql(server)) => server,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_file_is_relative_or_absolute_as_in_sqlalchemy() {
        assert_eq!(Place::read("sqlite:///a/b"), Ok(Place::Sqlite("a/b".into())));
        assert_eq!(Place::read("sqlite:////a/b"), Ok(Place::Sqlite("/a/b".into())));
        for bad in ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x"] {
            assert!(Place::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_read_whatever_driver_is_named() {
        for scheme in ["mysql", "mysql+pymysql", "mariadb", "mariadb+mariadbconnector"] {
            let url = format!("{scheme}://u%40x:p%40ss%2Fw@db.example:3307/d%20b?charset=utf8mb4");
            let server = server(&url);
            assert_eq!((server.host.as_str(), server.port), ("db.example", 3307));
            assert_eq!(server.user.as_deref(), Some("u@x"));
            assert_eq!(server.password, Some(Secret::new("p@ss/w")));
            assert_eq!((server.database.as_str(), &server.tls), ("d b", &None));
        }
        assert_eq!(server("mysql://h/d").port, 3306);
        assert_eq!(server("mysql:///d?unix_socket=/run/x").socket, Some("/run/x".into()));
    }

    #[test]
    fn tls_is_asked_for_in_pythons_words_and_in_mysqls() {
        let tls = |query: &str| server(&format!("mysql://h/d?{query}")).tls;
        assert_eq!(tls("ssl_ca=/ca"), Some(Tls { ca: Some("/ca".into()), ..Tls::default() }));
        assert_eq!(tls("ssl-mode=REQUIRED"), Some(Tls::default()));
        assert_eq!(tls("ssl_mode=DISABLED"), None);
        assert!(tls("ssl_ca=/ca&ssl_verify_identity=false").is_some_and(|tls| tls.any_name));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for bad in [
            "",
            "postgresql://u:hunter2@h/d",
            "mysql://u:hunter2@h",
            "mysql://u:hunter2@h/",
            "mysql://u:hunter2@h/d/e",
            "mysql://u:hunter2@h:x/d",
            "mysql://u:1/hunter2@h/d",
            "mysql://u:1#hunter2@h/d",
            "mysql://u:%ff@h/d",
            "mysql://u:hunter2@h/d?hunter2=1",
            "mysql://u:hunter2@h/d?ssl_key=/hunter2",
            "mysql://u:hunter2@h/d?ssl_verify_cert=false",
        ] {
            let why = Place::read(bad).expect_err(bad);
            assert!(!why.contains("hunter2") && !why.is_empty(), "{bad}: {why}");
        }
        let place = Place::read("mysql://u:hunter2@h/d").expect("a good URL");
        assert_eq!(place.to_string(), "d at h:3306");
        assert!(!format!("{place:?}").contains("hunter2"));
    }
}
