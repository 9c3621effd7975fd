//! The addresses of a host, within bounds.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::bounded;

/// Looks a name up. The system's resolver takes the time that it is configured to take, and cannot
/// be told to stop: it is asked in a thread, which is left to itself when the time is up.
///
/// # Errors
/// If the name has no address, or is not known in time.
pub(crate) fn resolve(host: &str, port: u16, patience: Duration) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (tell, found) = bounded(1);
    let name = (host.to_owned(), port);
    Builder::new().name("resolver".into()).spawn(move || {
        // Nobody wants to know any more if it took too long.
        let _ = tell.send(name.to_socket_addrs().map(Iterator::collect));
    })?;
    let late = || Error::new(ErrorKind::TimedOut, "the name servers do not answer");
    found.recv_timeout(patience).unwrap_or_else(|_| Err(late()))
}
