//! The side that runs the command.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Input, Options, Outcome, Output, Resizes, STREAMS_TIMEOUT};
use crate::spdy::{Config, Connection, Reset, Side, Stream};
use crate::upgrade::Upgrade;
use crate::websocket::{Channels, Protocol};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The streams that were asked for. Dropped before [`Session::finish`], the client learns of no outcome.
pub struct Session {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resizes: Option<Resizes>,
    error: Output,
    version: u8,
    carrier: Carrier,
    /// Kept until the end: half of a stream that is dropped is reset.
    _halves: Vec<Half>,
}

enum Half {
    In(#[expect(dead_code, reason = "held, not used")] Input),
    Out(#[expect(dead_code, reason = "held, not used")] Output),
}

enum Carrier {
    Spdy(Connection),
    WebSocket(Channels),
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the protocol {0:?} is none of remote commands")]
    Protocol(String),
    #[error("the client did not open its streams in time: {opened} of {expected}")]
    Timeout { opened: usize, expected: usize },
    #[error("the client is gone")]
    Closed,
}

/// Waits for the streams of a connection that has been upgraded. `idle`: a connection without traffic is closed.
pub async fn serve<T>(
    io: T,
    upgrade: &Upgrade,
    options: Options,
    idle: Option<Duration>,
) -> Result<Session, ServeError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let unknown = || ServeError::Protocol(upgrade.protocol().to_owned());
    match upgrade {
        Upgrade::Spdy { protocol } => {
            let version = match protocol.as_str() {
                "v4.channel.k8s.io" => 4,
                "v3.channel.k8s.io" => 3,
                "v2.channel.k8s.io" => 2,
                "channel.k8s.io" => 1,
                _ => return Err(unknown()),
            };
            let connection = Connection::new(io, Config { idle, ..Config::new(Side::Server) });
            serve_spdy(connection, version, options).await
        }
        Upgrade::WebSocket { protocol, .. } => {
            let protocol = Protocol::of(protocol).ok_or_else(unknown)?;
            serve_websocket(io, protocol, options, idle).await
        }
    }
}

async fn serve_websocket<T>(
    io: T,
    protocol: Protocol,
    options: Options,
    idle: Option<Duration>,
) -> Result<Session, ServeError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let readable = [options.stdin, false, false, false, options.tty];
    let mut channels = Channels::start(io, Role::Server, protocol, &readable, idle).await;
    let writer = |wanted: bool, channel: u8| wanted.then(|| Output::Channel(channels.writer(channel)));
    let (stdout, stderr) = (writer(options.stdout, STDOUT), writer(options.stderr, STDERR));
    // An empty message tells the client that all is ready.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    channels.writer(first).send(Bytes::new()).await.map_err(|_| ServeError::Closed)?;
    Ok(Session {
        stdin: channels.take_input(STDIN),
        stdout,
        stderr,
        resizes: channels.take_input(RESIZE).map(Resizes::new),
        error: Output::Channel(channels.writer(ERROR)),
        version: protocol.version,
        carrier: Carrier::WebSocket(channels),
        _halves: Vec::new(),
    })
}

/// As they arrive, by their type.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    fn slot(&mut self, kind: &str) -> Option<&mut Option<Stream>> {
        Some(match kind {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }
}

async fn serve_spdy(
    mut connection: Connection,
    version: u8,
    options: Options,
) -> Result<Session, ServeError> {
    let resize = options.tty && version >= 3;
    let wanted = [options.stdin, options.stdout, options.stderr, resize];
    let expected = 1 + wanted.into_iter().filter(|wanted| *wanted).count();
    let (mut streams, mut opened) = (Streams::default(), 0);
    let deadline = tokio::time::Instant::now() + STREAMS_TIMEOUT;
    while opened < expected {
        let incoming = tokio::time::timeout_at(deadline, connection.accept()).await;
        let incoming =
            incoming.map_err(|_| ServeError::Timeout { opened, expected })?.ok_or(ServeError::Closed)?;
        let kind = incoming.headers.get("streamType").unwrap_or_default().to_owned();
        match streams.slot(&kind) {
            Some(slot @ None) => {
                *slot = Some(incoming.accept().await.map_err(|_| ServeError::Closed)?);
                opened += 1;
            }
            _ => incoming.refuse(Reset::ProtocolError),
        }
    }
    connection.refuse_more();
    let mut halves = Vec::new();
    let mut input = |stream: Option<Stream>| {
        let stream = stream?;
        halves.push(Half::Out(Output::Spdy(stream.output)));
        Some(stream.input)
    };
    let (stdin, resizes) = (input(streams.stdin), input(streams.resize).map(Resizes::new));
    let mut output = |stream: Option<Stream>| {
        let stream = stream?;
        halves.push(Half::In(stream.input));
        Some(Output::Spdy(stream.output))
    };
    let (stdout, stderr) = (output(streams.stdout), output(streams.stderr));
    let error = output(streams.error).ok_or(ServeError::Closed)?;
    Ok(Session {
        stdin,
        stdout,
        stderr,
        resizes,
        error,
        version,
        carrier: Carrier::Spdy(connection),
        _halves: halves,
    })
}

impl Session {
    /// Ends when the client is gone.
    pub async fn closed(&self) {
        match &self.carrier {
            Carrier::Spdy(connection) => connection.closed().await,
            Carrier::WebSocket(channels) => channels.closed().await,
        }
    }

    /// Tells the client how it ended and closes the connection, after everything that was sent before. Outputs that
    /// were taken out must have been finished.
    pub async fn finish(mut self, outcome: &Outcome) {
        let said = async {
            for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
                output.finish().await?;
            }
            self.error.send(outcome.encode(self.version).into()).await?;
            self.error.finish().await
        };
        let _ = said.await;
        match self.carrier {
            Carrier::Spdy(connection) => connection.close().await,
            Carrier::WebSocket(channels) => channels.close().await,
        }
    }
}
