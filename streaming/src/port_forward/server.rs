//! The side that has the ports.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::spdy::{Config, Connection, Incoming, Reset, Side, Stream};
use crate::upgrade::Upgrade;
use crate::websocket::Tunnel;

/// For the other stream of a pair to come.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Server {
    connection: Connection,
    /// By their request.
    pairs: HashMap<String, Pair>,
}

struct Pair {
    port: u16,
    data: Option<Stream>,
    error: Option<Stream>,
    since: Instant,
}

/// One connection that the client wants to a port.
pub struct Forward {
    pub port: u16,
    pub request_id: String,
    pub data: Stream,
    error: Stream,
}

impl Server {
    /// `io` has been upgraded to SPDY, or to a WebSocket that SPDY is tunnelled through.
    pub async fn new<T>(io: T, upgrade: &Upgrade, idle: Option<Duration>) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = Config { idle, ..Config::new(Side::Server) };
        let connection = match upgrade {
            Upgrade::Spdy { .. } => Connection::new(io, config),
            Upgrade::WebSocket { .. } => Connection::new(Tunnel::new(io, Role::Server).await, config),
        };
        Self { connection, pairs: HashMap::new() }
    }

    /// The next connection that is asked for; `None`: the client is gone.
    pub async fn accept(&mut self) -> Option<Forward> {
        loop {
            let oldest = self.pairs.values().map(|pair| pair.since).min();
            let incoming = match oldest {
                None => self.connection.accept().await?,
                Some(since) => {
                    if let Ok(incoming) =
                        tokio::time::timeout_at(since + PAIR_TIMEOUT, self.connection.accept()).await
                    {
                        incoming?
                    } else {
                        self.give_up().await;
                        continue;
                    }
                }
            };
            if let Some(forward) = self.add(incoming).await {
                return Some(forward);
            }
        }
    }

    async fn add(&mut self, incoming: Incoming) -> Option<Forward> {
        let Some((port, is_data, request_id)) = read(&incoming) else {
            incoming.refuse(Reset::ProtocolError);
            return None;
        };
        let mut pair = self.pairs.remove(&request_id).unwrap_or_else(|| Pair {
            port,
            data: None,
            error: None,
            since: Instant::now(),
        });
        let slot = if is_data { &mut pair.data } else { &mut pair.error };
        if slot.is_some() || pair.port != port {
            incoming.refuse(Reset::ProtocolError);
        } else {
            *slot = Some(incoming.accept().await.ok()?);
        }
        match pair {
            Pair { data: Some(data), error: Some(error), .. } => {
                Some(Forward { port, request_id, data, error })
            }
            half => {
                self.pairs.insert(request_id, half);
                None
            }
        }
    }

    /// On those whose other half does not come.
    async fn give_up(&mut self) {
        let late = |pair: &mut Pair| pair.since.elapsed() >= PAIR_TIMEOUT;
        let late: Vec<Pair> = self.pairs.extract_if(|_, pair| late(pair)).map(|(_, pair)| pair).collect();
        for pair in late {
            if let Some(mut error) = pair.error {
                let _ = error.output.send(Bytes::from_static(b"timed out waiting for streams")).await;
                let _ = error.output.finish().await;
            }
        }
    }

    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Forward {
    /// Serves it with what `connect` connects; what goes wrong is told to the client.
    pub async fn run<T, E>(self, connect: impl Future<Output = Result<T, E>>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
        E: std::fmt::Display,
    {
        let Self { data, mut error, port, .. } = self;
        let failed = match connect.await {
            Ok(mut io) => super::copy(data, &mut io).await.err().map(|error| error.to_string()),
            Err(failed) => Some(failed.to_string()),
        };
        if let Some(failed) = failed {
            let message = format!("error forwarding port {port} to pod: {failed}");
            let _ = error.output.send(message.into()).await;
        }
        let _ = error.output.finish().await;
    }
}

/// Port, whether it is the data of a pair, and the pair's request. Old clients name no request: there the error stream
/// comes right before the data stream.
fn read(incoming: &Incoming) -> Option<(u16, bool, String)> {
    let port: u16 = incoming.headers.get("port")?.parse().ok()?;
    let is_data = match incoming.headers.get("streamType")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let request_id = match incoming.headers.get("requestID") {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => (if is_data { incoming.id.checked_sub(2)? } else { incoming.id }).to_string(),
    };
    (port > 0).then_some((port, is_data, request_id))
}
