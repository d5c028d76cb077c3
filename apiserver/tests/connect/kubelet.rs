//! A kubelet's streaming endpoint: TLS with client certificates, real commands, real ports.

use std::convert::Infallible;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use corten_apiserver::request::Query;
use corten_streaming::port_forward::{self, Server};
use corten_streaming::remote_command::{self, Options, Outcome, Output, SPDY_PROTOCOLS, Session};
use corten_streaming::upgrade::negotiate;
use corten_streaming::websocket::Protocol;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const IDLE: Option<Duration> = Some(Duration::from_mins(1));

/// Ends when dropped.
pub struct Kubelet {
    pub port: u16,
    /// Method, path and query of what it was asked.
    pub asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// `takes_websockets`: as one of 1.36 does; older ones speak SPDY only.
    pub async fn start(tls: rustls::ServerConfig, takes_websockets: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(|request| {
                        let line = format!("{} {}", request.method(), request.uri());
                        assert!(
                            !request.headers().contains_key("authorization"),
                            "a client's credentials came through"
                        );
                        seen.lock().expect("nobody panicked").push(line);
                        std::future::ready(Ok::<_, Infallible>(answer(request, takes_websockets)))
                    });
                    let serving = hyper::server::conn::http1::Builder::new();
                    let _ = serving.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Self { port, asked, task }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    response
}

fn answer(mut request: Request<Incoming>, takes_websockets: bool) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let what = parts[0];
    let (spdy, websocket): (&[&str], &[&str]) = match (what, takes_websockets) {
        ("containerLogs", _) => return logs(&parts, &query),
        ("exec" | "attach", true) => (&SPDY_PROTOCOLS, &Protocol::NAMES),
        ("exec" | "attach", false) => (&SPDY_PROTOCOLS, &[]),
        ("portForward", true) => (&[port_forward::PROTOCOL], &[port_forward::TUNNELLED]),
        ("portForward", false) => (&[port_forward::PROTOCOL], &[]),
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    if parts.get(2) == Some(&"gone") {
        return text(StatusCode::NOT_FOUND, "pod does not exist\n");
    }
    let upgrade = match negotiate(request.headers(), spdy, websocket) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.response().map(|text| Full::new(text.into())),
    };
    assert!(takes_websockets || request.method() == Method::POST);
    let response = upgrade.response().map(|()| Full::default());
    let upgraded = hyper::upgrade::on(&mut request);
    let is_forward = what == "portForward";
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.expect("upgraded"));
        if is_forward {
            let mut server = Server::new(io, &upgrade, IDLE).await;
            while let Some(forward) = server.accept().await {
                let port = forward.port;
                tokio::spawn(forward.run(TcpStream::connect(("127.0.0.1", port))));
            }
            return;
        }
        let flag = |name: &str| query.flag(name).unwrap_or(false);
        let options =
            Options { stdin: flag("input"), stdout: flag("output"), stderr: flag("error"), tty: flag("tty") };
        let options = options.normalized().expect("a stream");
        let session = remote_command::serve(io, &upgrade, options, IDLE).await.expect("streams");
        let words: Vec<String> = query.all("command").map(str::to_owned).collect();
        let words = if words.is_empty() { vec!["cat".to_owned()] } else { words };
        run(session, &words).await;
    });
    response
}

fn logs(parts: &[&str], query: &Query) -> Response<Full<Bytes>> {
    match parts {
        [_, _, "gone", _] => text(StatusCode::NOT_FOUND, "pod not found"),
        [_, _, "waiting", container] => {
            let said = format!(
                "container \"{container}\" in pod \"waiting\" is waiting to start: ContainerCreating"
            );
            text(StatusCode::BAD_REQUEST, said)
        }
        [_, namespace, pod, container] => {
            let lines = (0..20).map(|line| format!("{namespace}/{pod}/{container} line {line}\n"));
            let tail = query.get("tailLines").map_or(20, |tail| tail.parse().expect("a number"));
            text(StatusCode::OK, lines.skip(20 - tail).collect::<String>())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

async fn run(mut session: Session, words: &[String]) {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.stdin(if session.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return session.finish(&Outcome::Failure(format!("cannot run {words:?}: {error}"))).await;
        }
    };
    if let (Some(mut input), Some(mut stdin)) = (session.stdin.take(), child.stdin.take()) {
        tokio::spawn(async move {
            while let Some(bytes) = input.recv().await {
                if stdin.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
    }
    let stdout = copy(child.stdout.take(), session.stdout.take());
    let stderr = copy(child.stderr.take(), session.stderr.take());
    let ended = async { tokio::join!(stdout, stderr, child.wait()).2.expect("it ends") };
    let status = tokio::select! {
        status = ended => status,
        () = session.closed() => return,
    };
    let outcome = match status.code() {
        Some(0) => Outcome::Success,
        code => {
            let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(137);
            Outcome::Exit { code, message: format!("error executing command {words:?}, exit code {code}") }
        }
    };
    session.finish(&outcome).await;
}

async fn copy(from: Option<impl AsyncRead + Unpin>, to: Option<Output>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let mut piece = vec![0; 8192];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if to.send(Bytes::copy_from_slice(&piece[..length])).await.is_err() {
            return;
        }
    }
    let _ = to.finish().await;
}
