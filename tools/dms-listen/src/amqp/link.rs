//! One connection to one broker.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use amiquip::{
    Auth, Channel, Connection, ConnectionBlockedNotification, ConnectionOptions, ConnectionTuning,
};
use crossbeam_channel::Receiver;

use crate::amqp::broker::{Broker, Login};
use crate::amqp::resolve::resolve;
use crate::amqp::time_limit::TimeLimit;
use crate::amqp::tls;

/// How long the broker may take over one call.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// What is said of a broker that takes too long.
const SILENT: &str = "the broker does not answer";

/// How long all of connecting may take, whatever a name's addresses.
const LONGEST: Duration = Duration::from_secs(120);

/// How long it may take over our good-bye.
const PARTING: Duration = Duration::from_secs(2);

/// An open connection. It is closed when it is dropped, and cut if the broker does not say goodbye
/// within 2 s.
pub(crate) struct Link {
    /// `None` once it was closed.
    connection: RefCell<Option<Connection>>,
    socket: TcpStream,
    limit: TimeLimit,
    /// Says when the broker takes no messages any more, and when it does again.
    pub(crate) blocked: Receiver<ConnectionBlockedNotification>,
}

impl Link {
    /// Connects and logs in, within this time and that of the broker's URL.
    ///
    /// # Errors
    /// `unable to connect to HOST:PORT: reason`, without a secret.
    pub(crate) fn open(broker: &Broker, who: &str, patience: Duration) -> Result<Link, String> {
        let end = Instant::now() + patience.min(LONGEST);
        let unable =
            |why: String| format!("unable to connect to {broker}: {}", dms_cli::plain(&why));
        let system = |why: io::Error| unable(why.to_string());
        let socket = connect(broker, end).map_err(system)?;
        let limit = TimeLimit::new(socket.try_clone().map_err(system)?).map_err(system)?;
        let stream = socket.try_clone().and_then(mio::net::TcpStream::from_stream);
        let stream = stream.map_err(system)?;
        let logged_in = limit.within(share(broker, end), || {
            let mut connection = log_in(broker, who, stream)?;
            let blocked = connection.listen_for_connection_blocked();
            Ok((connection, blocked.map_err(|why| why.to_string())?))
        });
        let (connection, blocked) = logged_in.map_err(|why: String| {
            // Else a broker that says nothing would have refused the password, which was sent.
            unable(if limit.has_cut() { SILENT.to_owned() } else { why })
        })?;
        Ok(Link { connection: RefCell::new(Some(connection)), socket, limit, blocked })
    }

    /// A new channel, within this time.
    pub(crate) fn channel(&self, patience: Duration) -> amiquip::Result<Channel> {
        let mut connection = self.connection.borrow_mut();
        let Some(connection) = connection.as_mut() else {
            return Err(amiquip::Error::ClientClosedConnection);
        };
        self.limit.within(patience.min(CALL), || connection.open_channel(None))
    }

    /// Makes a call to the broker, and cuts the connection if that takes longer than `patience`,
    /// and in any case if it takes unreasonably long.
    pub(crate) fn call<T>(&self, patience: Duration, act: impl FnOnce() -> T) -> T {
        self.limit.within(patience.min(CALL), act)
    }

    /// Ends the connection at once. What has not been sent yet never will be.
    pub(crate) fn cut(&self) {
        // It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Bounds what is to come when the result is dropped: consumers and channels that are dropped
    /// after it take their leave of the broker, one by one.
    pub(crate) fn bound_parting(&self) -> Parting<'_> {
        Parting(self)
    }

    /// Closes it and says why it had ended, if it had.
    pub(crate) fn close(&self) -> Result<(), String> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        let closed = self.limit.within(PARTING, || connection.close());
        closed.map_err(|why| reason(&why))
    }
}

/// See [`Link::bound_parting`].
pub(crate) struct Parting<'a>(&'a Link);

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        self.0.limit.cut_after(PARTING);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Whoever wants to know why it ended asks `close`.
        let _ = self.close();
    }
}

/// Whether an error says no more than that the connection is gone.
pub(crate) fn is_vague(why: &amiquip::Error) -> bool {
    matches!(
        why,
        amiquip::Error::UnexpectedSocketClose
            | amiquip::Error::EventLoopDropped
            | amiquip::Error::EventLoopClientDropped
            | amiquip::Error::ClientClosedChannel
            | amiquip::Error::ClientClosedConnection
    )
}

/// An error of the library, as a reason in one line.
pub(crate) fn reason(why: &amiquip::Error) -> String {
    let text = match why {
        amiquip::Error::ServerClosedConnection { message, .. }
        | amiquip::Error::ServerClosedChannel { message, .. } => message.clone(),
        vague if is_vague(vague) => "the connection was lost".to_owned(),
        amiquip::Error::InvalidCredentials => {
            "the broker refused the user or the password".to_owned()
        }
        other => other.to_string(),
    };
    dms_cli::plain(&text)
}

/// How long one step may take: looking its name up, connecting to an address, logging in.
fn share(broker: &Broker, end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).min(broker.connect_timeout)
}

/// All addresses of its name, one after the other.
fn connect(broker: &Broker, end: Instant) -> io::Result<TcpStream> {
    let mut last = None;
    for address in resolve(&broker.host, broker.port, share(broker, end))? {
        // Zero would be refused as no time at all.
        let patience = share(broker, end).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, patience) {
            Ok(socket) => {
                // Else each small answer waits for the acknowledgement of the one before it.
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(why) => last = Some(why),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

fn log_in(broker: &Broker, who: &str, stream: mio::net::TcpStream) -> Result<Connection, String> {
    let auth = match &broker.login {
        Login::External => Auth::External,
        Login::Plain { user, password } => {
            Auth::Plain { username: user.clone(), password: password.reveal().to_owned() }
        }
    };
    let options = ConnectionOptions::default()
        .auth(auth)
        .virtual_host(broker.vhost.as_str())
        .heartbeat(broker.heartbeat)
        .information(Some(who.to_owned()));
    let tuning = ConnectionTuning::default();
    let opened = match &broker.tls {
        None => Connection::insecure_open_stream(stream, options, tuning),
        Some(settings) => {
            let connector = tls::connector(settings)?;
            let name = settings.name.as_deref().unwrap_or(&broker.host);
            Connection::open_tls_stream(connector, name, stream, options, tuning)
        }
    };
    opened.map_err(|why| reason(&why))
}
