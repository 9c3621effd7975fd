//! A stand-in for a hostile or broken key manager: it counts who comes, keeps what they say, and
//! answers whatever a test makes up. What a real one does, a real one shows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Long enough for a request to arrive, should it be on its way.
const HEARING: Duration = Duration::from_secs(10);

/// What is answered, and how: the request's head, and the way to whoever sent it.
type Answer = dyn Fn(&str, &mut TcpStream) + Send + Sync;

/// A server on a port of its own, on 127.0.0.1.
pub struct Witness {
    port: u16,
    seen: Arc<Seen>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    connections: AtomicUsize,
    heard: Mutex<String>,
}

impl Witness {
    /// One that answers each request so, and then hangs up.
    pub fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Witness {
        Witness::with(true, answer)
    }

    /// One that does not wait for a request: somebody else speaks first in its protocol.
    pub fn start_deaf(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Witness {
        Witness::with(false, answer)
    }

    fn with(
        listens: bool,
        answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static,
    ) -> Witness {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let seen = Arc::new(Seen::default());
        let (watched, answer): (_, Arc<Answer>) = (Arc::clone(&seen), Arc::new(answer));
        let server = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if watched.is_over.load(Ordering::SeqCst) {
                    break;
                }
                watched.connections.fetch_add(1, Ordering::SeqCst);
                let (watched, answer) = (Arc::clone(&watched), Arc::clone(&answer));
                thread::spawn(move || serve(&watched, &*answer, stream, listens));
            }
        });
        Witness { port, seen, server: Some(server) }
    }

    /// One that answers every request with this, byte for byte.
    pub fn saying(text: impl Into<String>) -> Witness {
        let text = text.into();
        Witness::start(move |_, stream| {
            let _ = stream.write_all(text.as_bytes());
        })
    }

    /// Where it is.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is, for a key manager without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many have connected.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// What all of them have said.
    pub fn heard(&self) -> String {
        self.seen.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(seen: &Seen, answer: &Answer, mut stream: TcpStream, listens: bool) {
    let _ = stream.set_read_timeout(Some(HEARING));
    let mut head = Vec::new();
    let mut byte = [0];
    while listens && !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&head);
    answer(&head, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
    // To close with something unread would reset the connection, and the answer be lost.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::SeqCst);
        // It waits for one more.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// An HTTP answer.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
