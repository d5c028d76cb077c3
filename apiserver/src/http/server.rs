//! Sockets: accepts connections, speaks TLS, HTTP/1.1 and HTTP/2 on them, and ends them in order.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Connection;
use crate::api::Api;
use crate::hooks::Der;

/// What a client may take of this server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// More wait to be accepted.
    pub connections: usize,
    /// Of a TLS handshake.
    pub handshake: Duration,
    /// Of a request's head, and of a connection without a request.
    pub head: Duration,
    pub head_bytes: usize,
    /// Requests at once on one HTTP/2 connection; as Go's server has it.
    pub streams: u32,
    /// What is asked for when the server ends may take so long.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(90),
            head_bytes: 1 << 20,
            streams: 250,
            grace: Duration::from_mins(1),
        }
    }
}

/// Serves until `stop` comes, then ends: no new connections, watches end, requests are finished.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(());
    let free = Arc::new(Semaphore::new(limits.connections));
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &free) => accepted,
        };
        let Some((socket, peer, permit)) = accepted else { continue };
        let (api, tls, limits, stopped) = (Arc::clone(&api), tls.clone(), limits.clone(), stopped.clone());
        connections.spawn(async move {
            let _permit = permit;
            connection(api, socket, peer, tls, &limits, stopped).await;
        });
    }
    drop(listener);
    drop(stopped);
    // First every connection says that it ends (GOAWAY), then the watches do: their clients come back on another.
    let _ = stopping.send(());
    api.watches.close().await;
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.grace, all).await.is_err() {
        tracing::warn!("connections are cut: their requests took longer than {:?}", limits.grace);
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer, permit)),
        Err(error) => {
            // Of one connection (ECONNABORTED), or no descriptor is free (EMFILE), which passes.
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    api: Arc<Api>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    limits: &Limits,
    stopped: watch::Receiver<()>,
) {
    let _ = socket.set_nodelay(true);
    // A client that is gone without a word, with a watch that says nothing.
    let _ = sockopt::set_socket_keepalive(&socket, true);
    let _ = sockopt::set_tcp_keepidle(&socket, Duration::from_mins(3));
    let Some(acceptor) = tls else {
        let connection = Connection { peer: Some(peer), ..Connection::default() };
        return http1(api, socket, connection, limits, stopped).await;
    };
    let stream = match timeout(limits.handshake, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("TLS handshake with {peer}: {error}"),
        Err(_) => return tracing::debug!("TLS handshake with {peer}: too slow"),
    };
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates: Arc<[Der]> = certificates.iter().map(|one| one.as_ref().to_vec()).collect();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let connection = Connection { peer: Some(peer), certificates };
    if is_http2 {
        http2(api, stream, connection, limits, stopped).await;
    } else {
        http1(api, stream, connection, limits, stopped).await;
    }
}

async fn http1<S>(
    api: Arc<Api>,
    stream: S,
    connection: Connection,
    limits: &Limits,
    mut stopped: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| answer(&api, request, &connection));
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    log(&connection, result);
}

async fn http2<S>(
    api: Arc<Api>,
    stream: S,
    connection: Connection,
    limits: &Limits,
    mut stopped: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| answer(&api, request, &connection));
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    log(&connection, result);
}

fn answer(
    api: &Arc<Api>,
    mut request: http::Request<Incoming>,
    connection: &Connection,
) -> impl Future<Output = Result<http::Response<crate::api::Body>, std::convert::Infallible>> + use<> {
    // Who somebody is, is never said by the socket's other end.
    request.extensions_mut().insert(connection.clone());
    let response = api.handle(request);
    async move { Ok(response.await) }
}

fn log(connection: &Connection, result: hyper::Result<()>) {
    if let (Err(error), Some(peer)) = (result, connection.peer) {
        tracing::debug!("connection from {peer}: {error}");
    }
}
