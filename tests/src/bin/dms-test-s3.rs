//! `dms-test-s3`: a local S3 server for tests that verifies the AWS signature of every request.
//!
//! Objects are plain files: each directory below `--root` is a bucket, each file in it an object.
//! There is one key pair. A request signed with another access key is answered `NotSignedUp`, one
//! signed with another secret `SignatureDoesNotMatch`, and an unsigned one `AccessDenied`. The
//! secret is read from a file, so that it never shows in a process list.
//!
//! `s3s-fs` answers a HEAD on a directory with status 500, which makes s3fs retry for more than a
//! minute per `mkdir`. [`Directories`] answers for directories (keys that end in `/`) instead.
//!
//! Once it accepts connections the server prints one line, `listening on ADDRESS:PORT`, to
//! standard output. It ends with status 0 on SIGTERM or SIGINT, dropping what is still in flight,
//! and with status 1 and a message on standard error when it cannot start.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as HttpServer;
use s3s::auth::{SecretKey, SimpleAuth};
use s3s::route::S3Route;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long to wait before accepting again when accepting failed (no free descriptor, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A local S3 server for tests that verifies the AWS signature of every request
#[derive(Parser)]
struct Options {
    /// Existing directory; each directory below it is a bucket
    #[arg(long, value_name = "DIR")]
    root: PathBuf,

    /// The one access key that is accepted
    #[arg(long, value_name = "KEY")]
    access_key: String,

    /// File that holds the secret key; white space around it is ignored
    #[arg(long, value_name = "FILE")]
    secret_key_file: PathBuf,

    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Listen on another address, too: in a network namespace of a test's own
    #[arg(long)]
    beyond_loopback: bool,
}

/// Directory objects. Their metadata (mode, owner, times as s3fs keeps them) lasts as long as the
/// server does; the directories themselves stay.
struct Directories {
    root: PathBuf,
    metadata: Mutex<HashMap<PathBuf, HeaderMap>>,
}

impl Directories {
    /// The file or directory that an object's address stands for; none for a bucket's address.
    fn path(&self, uri: &Uri) -> Option<PathBuf> {
        let key = urlencoding::decode(uri.path().trim_start_matches('/')).ok()?;
        let key = Path::new(&*key);
        let plain = key.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && key.components().count() > 1).then(|| self.root.join(key))
    }
}

#[async_trait::async_trait]
impl S3Route for Directories {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        self.path(uri).is_some_and(|path| match *method {
            Method::HEAD => path.is_dir(),
            Method::PUT => uri.path().ends_with('/'),
            _ => false,
        })
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let path = self.path(&request.uri).ok_or_else(|| s3_error!(InvalidURI))?;
        if !request.uri.path().ends_with('/') {
            return Err(s3_error!(NoSuchKey));
        }
        let mut all = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if request.method == Method::PUT {
            std::fs::create_dir_all(&path).map_err(|error| s3_error!(error, InternalError))?;
            let kept = request.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
            let kept = kept.filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
            all.insert(path, kept.collect());
            return Ok(S3Response::new(Body::empty()));
        }
        let mut metadata = all.get(&path).cloned().unwrap_or_default();
        // The type tells s3fs that this is a directory: its mode has no file type in it.
        let kind = HeaderValue::from_static("application/x-directory");
        metadata.insert(CONTENT_TYPE, kind);
        Ok(S3Response::with_headers(Body::empty(), metadata))
    }
}

fn main() -> ExitCode {
    match start(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone too, the exit status is all that can be told.
            let _ = writeln!(io::stderr().lock(), "dms-test-s3: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<(), Box<dyn Error>> {
    if !options.beyond_loopback && !options.listen.ip().is_loopback() {
        return Err(format!("{} is no loopback address", options.listen).into());
    }
    let secret = read_secret(&options.secret_key_file)?;
    // The library's error is no std::error::Error and tells no more than this.
    let files = FileSystem::new(&options.root)
        .map_err(|_| format!("{} is no usable directory", options.root.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(options.access_key, secret));
    builder.set_route(Directories { root: options.root, metadata: Mutex::default() });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(options.listen, builder.build()))?;
    Ok(())
}

fn read_secret(file: &Path) -> Result<SecretKey, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match text.trim() {
        "" => Err(format!("{} holds no secret key", file.display())),
        secret => Ok(SecretKey::from(secret)),
    }
}

/// Serves until a signal asks for the end. Connections still open then end with the runtime.
async fn serve(address: SocketAddr, service: S3Service) -> io::Result<()> {
    // Before the ready line: whoever has read it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address).await?;
    announce(listener.local_addr()?)?;
    let http = HttpServer::new(TokioExecutor::new()).http1_only();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
        // A client that breaks off is no concern of the server's: the outcome is dropped.
        tokio::spawn(async move { connection.await.ok() });
    }
}

fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    out.flush()
}
