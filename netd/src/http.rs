//! HTTP/1.1, reads only: /healthz, /readyz and /metrics on a TCP port; on the state directory's socket also /status and
//! /drops, which tell more than strangers should know.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

/// The socket's name in the state directory.
pub const SOCKET: &str = "netd.sock";
/// Clients at once, per listener; more wait.
const MAX_CLIENTS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `corten-netd status` waits for the daemon to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the daemon can say of itself.
pub trait Answers: Send + Sync + 'static {
    /// `Err`: why pods cannot talk yet.
    fn ready(&self) -> Result<(), String>;
    fn metrics(&self, metrics: &mut Metrics);
    fn status_text(&self) -> String;
    fn status_json(&self) -> Vec<u8>;
    /// Lines that come as long as the receiver lives; `Err`: why there are none.
    fn drops(&self, json: bool) -> Result<mpsc::Receiver<Bytes>, String>;
}

/// A listening endpoint; dropping it closes it.
pub struct Server {
    task: JoinHandle<()>,
    socket: Option<PathBuf>,
    /// Where it listens, when that is TCP.
    pub address: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Server {
    /// # Errors
    /// bind(2)'s.
    pub async fn tcp(address: SocketAddr, answers: Arc<dyn Answers>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = Some(listener.local_addr()?);
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_CLIENTS));
            loop {
                let place = places.clone().acquire_owned().await.expect("never closed");
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(connection(client, answers.clone(), false, place))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self { task, socket: None, address })
    }

    /// Listens on `dir`/[`SOCKET`], for root alone. The caller holds the lock of `dir`: a socket there is a dead
    /// daemon's.
    pub fn unix(dir: &Path, answers: Arc<dyn Answers>) -> std::io::Result<Self> {
        let path = dir.join(SOCKET);
        // Bound under a private name: nobody can connect before the mode is right.
        let private = dir.join(format!(".{SOCKET}"));
        let _ = std::fs::remove_file(&private);
        let listener = UnixListener::bind(&private)?;
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&private, &path)?;
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_CLIENTS));
            loop {
                let place = places.clone().acquire_owned().await.expect("never closed");
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(connection(client, answers.clone(), true, place))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self { task, socket: Some(path), address: None })
    }
}

async fn connection<Client: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    client: Client,
    answers: Arc<dyn Answers>,
    trusted: bool,
    place: tokio::sync::OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &*answers, trusted);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client that went away is the client's business.
    let _ = http.serve_connection(TokioIo::new(client), service).await;
    drop(place);
}

fn answer(request: &Request<Incoming>, answers: &dyn Answers, trusted: bool) -> Response<Lines> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let json = request.uri().query() == Some("json");
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "corten-netd is running\n"),
        "/readyz" => match answers.ready() {
            Ok(()) => text(StatusCode::OK, "corten-netd is ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}\n")),
        },
        "/metrics" => {
            let mut metrics = Metrics::default();
            answers.metrics(&mut metrics);
            respond(StatusCode::OK, "text/plain; version=0.0.4", Lines::One(Some(metrics.into_text().into())))
        }
        "/status" if trusted && json => {
            respond(StatusCode::OK, "application/json", Lines::One(Some(answers.status_json().into())))
        }
        "/status" if trusted => text(StatusCode::OK, &answers.status_text()),
        "/drops" if trusted => match answers.drops(json) {
            Ok(lines) => respond(StatusCode::OK, "text/plain; charset=utf-8", Lines::Many(lines)),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        },
        _ if trusted => text(
            StatusCode::NOT_FOUND,
            "there are /healthz, /readyz, /metrics, /status[?json], /drops[?json]\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Lines> {
    respond(status, "text/plain; charset=utf-8", Lines::One(Some(Bytes::from(text.to_owned()))))
}

fn respond(status: StatusCode, kind: &'static str, body: Lines) -> Response<Lines> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A body: one piece, or pieces as they come.
enum Lines {
    One(Option<Bytes>),
    Many(mpsc::Receiver<Bytes>),
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Lines::One(piece) => Poll::Ready(piece.take().map(|bytes| Ok(Frame::data(bytes)))),
            Lines::Many(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Lines::One(piece) => {
                hyper::body::SizeHint::with_exact(piece.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Lines::Many(_) => hyper::body::SizeHint::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no corten-netd answers on {}: {error}; is it running, with this --state-dir?", socket.display())]
    NotRunning { socket: PathBuf, error: std::io::Error },
    #[error("{}: {what}", socket.display())]
    Protocol { socket: PathBuf, what: String },
    /// What the daemon said instead of an answer.
    #[error("{0}")]
    Refused(String),
    #[error("cannot write: {0}")]
    Output(std::io::Error),
}

/// Asks the daemon of `state_dir` for `path` and writes the answer to `out` as it comes.
pub async fn ask(state_dir: &Path, path: &str, out: &mut dyn std::io::Write) -> Result<(), AskError> {
    use http_body_util::BodyExt;
    let socket = state_dir.join(SOCKET);
    let protocol = |error: &dyn std::fmt::Display| AskError::Protocol {
        socket: state_dir.join(SOCKET),
        what: error.to_string(),
    };
    let stream = tokio::net::UnixStream::connect(&socket)
        .await
        .map_err(|error| AskError::NotRunning { socket: socket.clone(), error })?;
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| protocol(&e))?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "netd").body(String::new()).expect("constants of ours");
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, client.send_request(request)).await;
    let late = format!("no answer within {} s; look at the daemon's log", ANSWER_TIMEOUT.as_secs());
    let mut response = answered.map_err(|_| protocol(&late))?.map_err(|e| protocol(&e))?;
    if response.status() != StatusCode::OK {
        let said = response.into_body().collect().await.map_err(|e| protocol(&e))?.to_bytes();
        return Err(AskError::Refused(String::from_utf8_lossy(&said).trim_end().to_owned()));
    }
    while let Some(frame) = response.frame().await {
        if let Some(bytes) = frame.map_err(|e| protocol(&e))?.data_ref() {
            out.write_all(bytes).and_then(|()| out.flush()).map_err(AskError::Output)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Fixed {
        ready: bool,
    }

    impl Answers for Fixed {
        fn ready(&self) -> Result<(), String> {
            if self.ready { Ok(()) } else { Err("waiting for a pod CIDR".into()) }
        }
        fn metrics(&self, metrics: &mut Metrics) {
            metrics.gauge("x", "X.", &[(&[], 3.0)]);
        }
        fn status_text(&self) -> String {
            "text".into()
        }
        fn status_json(&self) -> Vec<u8> {
            b"{}".to_vec()
        }
        fn drops(&self, _json: bool) -> Result<mpsc::Receiver<Bytes>, String> {
            let (sender, receiver) = mpsc::channel(4);
            for line in ["a\n", "b\n"] {
                sender.try_send(Bytes::from(line)).expect("room");
            }
            Ok(receiver)
        }
    }

    async fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn strangers_learn_health_and_numbers_alone() {
        let server =
            Server::tcp("127.0.0.1:0".parse().unwrap(), Arc::new(Fixed { ready: false })).await.unwrap();
        let at = server.address.unwrap();
        assert!(get(at, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get(at, "GET /readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("waiting for a pod CIDR"), "{ready}");
        assert!(get(at, "GET /metrics").await.ends_with("# HELP x X.\n# TYPE x gauge\nx 3\n"));
        assert!(get(at, "GET /status").await.starts_with("HTTP/1.1 404"));
        assert!(get(at, "GET /drops").await.starts_with("HTTP/1.1 404"));
        assert!(get(at, "POST /healthz").await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn the_socket_tells_all_and_goes_with_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::unix(dir.path(), Arc::new(Fixed { ready: true })).unwrap();
        let socket = dir.path().join(SOCKET);
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        for (path, wanted) in [("/status", "text"), ("/status?json", "{}"), ("/drops", "a\nb\n")] {
            let mut out = Vec::new();
            ask(dir.path(), path, &mut out).await.unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
        drop(server);
        assert!(!socket.exists());
        let error = ask(dir.path(), "/status", &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("is it running"), "{error}");
    }
}
