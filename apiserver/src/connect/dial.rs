//! Connections to what requests go on to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::go;
use crate::api::Body;

/// Where a request goes on to.
#[derive(Clone)]
pub(super) struct Location {
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    pub host: String,
    pub port: u16,
    /// Of the URL, with its query.
    pub path: String,
    pub timeout: Duration,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Location {
    pub(super) fn authority(&self) -> String {
        go::join_host_port(&self.host, &self.port.to_string())
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// In Go's words: it could not be connected to.
    async fn dial(&self) -> Result<Box<dyn Io>, String> {
        let authority = self.authority();
        let work = async {
            let socket = TcpStream::connect((&*self.host, self.port)).await?;
            socket.set_nodelay(true)?;
            let Some(config) = &self.tls else { return Ok(Box::new(socket) as Box<dyn Io>) };
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        };
        let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
        let dialled = tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| late());
        dialled.map_err(|error: io::Error| go::dial(&authority, &error))
    }

    /// Sends a request; an upgrade of its response can be taken.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let stream = self.dial().await.map_err(Failed::Dial)?;
        let broken = |error: hyper::Error| Failed::Broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(broken)
    }
}

/// No response came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Dial(String),
    #[error("{0}")]
    Broken(String),
}
