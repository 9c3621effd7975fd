//! A bound for calls that have none.

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

/// Cuts a connection if what is done on it takes too long. amiquip waits for a broker's answer as
/// long as the broker's heart beats, or twice the time between two beats if it does not.
pub(crate) struct Fuse {
    /// From when on the connection is to be cut; `None`: not at all.
    orders: Sender<Option<Instant>>,
}

impl Fuse {
    /// For this socket. Its thread ends with the fuse.
    pub(crate) fn new(socket: TcpStream) -> std::io::Result<Fuse> {
        let (orders, received) = unbounded::<Option<Instant>>();
        std::thread::Builder::new().name("fuse".into()).spawn(move || {
            let mut end = None;
            loop {
                let order = match end {
                    None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(at) => received.recv_deadline(at),
                };
                match order {
                    Ok(order) => end = order,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        // It may be closed already.
                        let _ = socket.shutdown(Shutdown::Both);
                        end = None;
                    }
                }
            }
        })?;
        Ok(Fuse { orders })
    }

    /// Cuts the connection then, whatever is done on it.
    pub(crate) fn light(&self, patience: Duration) {
        // The thread lives as long as we do.
        let _ = self.orders.send(Some(Instant::now() + patience));
    }

    /// Does this, and cuts the connection after `patience`, so that it fails.
    pub(crate) fn within<T>(&self, patience: Duration, act: impl FnOnce() -> T) -> T {
        self.light(patience);
        let result = act();
        let _ = self.orders.send(None);
        result
    }
}
