//! What systemd wants to know (sd_notify(3)).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager; silent where there is none.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are alive.
    pub(crate) watchdog: Option<Duration>,
}

impl Manager {
    /// The one that started us, as the environment tells.
    pub(crate) fn from_env() -> Manager {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let socket = socket.and_then(|path| match open(&path) {
            Ok(socket) => Some(socket),
            Err(why) => {
                log::warn!("unable to notify {}: {why}", path.display());
                None
            }
        });
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| is_ours && usec > 0);
        // Twice in the time that it allows.
        Manager {
            socket,
            watchdog: watchdog.map(|usec| Duration::from_micros((usec / 2).max(1000))),
        }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Tells it `READY=1`, `STATUS=...` and the like.
    pub(crate) fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen is none of our business.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

fn open(path: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // One that does not read must not keep us from our work.
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok((socket, address))
}
