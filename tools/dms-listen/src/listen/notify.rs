//! What systemd wants to know (sd_notify(3)), and when.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How often it is told of numbers that change.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells the service manager; silent where there is none.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are alive, and when next.
    watchdog: Option<(Duration, Instant)>,
    is_ready: bool,
    /// The status that it was told last.
    status: String,
    /// From when on it may be told of another.
    next: Instant,
}

impl Reporter {
    /// To the manager that started us, as the environment tells.
    pub(crate) fn from_env() -> Reporter {
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
        let every = watchdog.map(|usec| Duration::from_micros((usec / 2).max(1000)));
        let now = Instant::now();
        Reporter {
            socket,
            watchdog: every.map(|every| (every, now)),
            is_ready: false,
            status: String::new(),
            next: now,
        }
    }

    /// When there is something to tell, if nothing happens before.
    pub(crate) fn wake(&self, status: impl FnOnce() -> String) -> Option<Instant> {
        let is_news = self.socket.is_some() && status() != self.status;
        [is_news.then_some(self.next), self.beat()].into_iter().flatten().min()
    }

    /// When it wants to hear next that we are alive.
    pub(crate) fn beat(&self) -> Option<Instant> {
        self.watchdog.map(|(_, next)| next)
    }

    /// Says that we are alive, if it is to be told so by now.
    pub(crate) fn alive(&mut self) {
        let now = Instant::now();
        if let Some((every, _)) = self.watchdog.filter(|&(_, next)| now >= next) {
            self.tell("WATCHDOG=1");
            self.watchdog = Some((every, now + every));
        }
    }

    /// Whether it may be told of a new status now.
    pub(crate) fn is_due(&self) -> bool {
        self.socket.is_some() && Instant::now() >= self.next
    }

    /// Tells it the status, if that is a new one.
    pub(crate) fn report(&mut self, status: String) {
        if status != self.status {
            self.tell(&format!("STATUS={status}"));
            self.status = status;
            self.next = Instant::now() + PAUSE;
        }
    }

    /// The next status is worth telling at once.
    pub(crate) fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// The start is over.
    pub(crate) fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.tell("READY=1");
        }
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
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
