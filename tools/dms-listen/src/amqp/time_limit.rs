//! A bound for calls that have none.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

/// Cuts a connection if what is done on it takes too long. amiquip waits for a broker's answer as
/// long as the broker's heart beats, or twice the time between two beats if it does not.
pub(crate) struct TimeLimit {
    /// From when on the connection is to be cut; `None`: not at all.
    orders: Sender<Option<Instant>>,
    has_cut: Arc<AtomicBool>,
}

impl TimeLimit {
    /// For this socket. Its thread ends with the limit.
    pub(crate) fn new(socket: TcpStream) -> std::io::Result<TimeLimit> {
        let (orders, received) = unbounded::<Option<Instant>>();
        let has_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&has_cut);
        std::thread::Builder::new().name("time-limit".into()).spawn(move || {
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
                        // Said first: whoever sees the end of the connection asks why.
                        cut.store(true, Ordering::SeqCst);
                        // It may be closed already.
                        let _ = socket.shutdown(Shutdown::Both);
                        end = None;
                    }
                }
            }
        })?;
        Ok(TimeLimit { orders, has_cut })
    }

    /// Cuts the connection then, whatever is done on it.
    pub(crate) fn cut_after(&self, patience: Duration) {
        // The thread lives as long as we do.
        let _ = self.orders.send(Some(Instant::now() + patience));
    }

    /// Does this, and cuts the connection after `patience`, so that it fails.
    pub(crate) fn within<T>(&self, patience: Duration, act: impl FnOnce() -> T) -> T {
        self.cut_after(patience);
        let result = act();
        let _ = self.orders.send(None);
        result
    }

    /// Whether the connection ended because time was up.
    pub(crate) fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::SeqCst)
    }
}
