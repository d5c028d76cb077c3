//! Several channels over one WebSocket.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::channels::{Protocol, Said};
use super::{normal_close, socket};
use crate::Closed;

const INPUT_QUEUE: usize = 32;
const OUTPUT_QUEUE: usize = 16;
const CHUNK: usize = 32 << 10;
/// For the peer to answer that we close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Dropped, it ends the connection.
pub struct Channels {
    protocol: Protocol,
    role: Role,
    /// By channel; those that the peer may write.
    inputs: Vec<Option<mpsc::Receiver<Bytes>>>,
    out: mpsc::Sender<Out>,
    closed: watch::Sender<bool>,
}

enum Out {
    Message(Message),
    Close,
}

/// One channel to the peer.
pub struct ChannelWriter {
    protocol: Protocol,
    role: Role,
    channel: u8,
    out: mpsc::Sender<Out>,
}

impl Channels {
    /// `readable`: for each channel, whether the peer may write it; what it writes elsewhere is dropped.
    pub async fn start<T>(
        io: T,
        role: Role,
        protocol: Protocol,
        readable: &[bool],
        idle: Option<Duration>,
    ) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sink, stream) = socket(io, role).await.split();
        let (out, outgoing) = mpsc::channel(OUTPUT_QUEUE);
        let pipes = readable.iter().map(|&readable| readable.then(|| mpsc::channel(INPUT_QUEUE)));
        let (senders, inputs) =
            pipes.map(|pipe| pipe.map_or((None, None), |(to, from)| (Some(to), Some(from)))).unzip();
        let closed = watch::Sender::new(false);
        tokio::spawn(until_closed(closed.clone(), read(stream, protocol, senders, idle)));
        tokio::spawn(until_closed(closed.clone(), write(sink, outgoing)));
        Self { protocol, role, inputs, out, closed }
    }

    /// What the peer writes on a channel; can be taken once.
    pub fn take_input(&mut self, channel: u8) -> Option<mpsc::Receiver<Bytes>> {
        self.inputs.get_mut(usize::from(channel))?.take()
    }

    pub fn writer(&self, channel: u8) -> ChannelWriter {
        ChannelWriter { protocol: self.protocol, role: self.role, channel, out: self.out.clone() }
    }

    /// Ends when the connection is over.
    pub async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Waits until everything is written and the peer has answered.
    pub async fn close(self) {
        if self.out.send(Out::Close).await.is_ok() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.closed()).await;
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.closed.send_replace(true);
    }
}

impl ChannelWriter {
    /// Waits while the peer does not take it. Nothing is a message too.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Closed> {
        loop {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let message = self.protocol.write(self.channel, &chunk);
            self.out.send(Out::Message(message)).await.map_err(|_| Closed)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Says that nothing more comes, where that can be said: version 5 has it from the client only.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn finish(&mut self) -> Result<(), Closed> {
        match self.protocol.write_close(self.channel) {
            Some(message) if self.role == Role::Client => {
                self.out.send(Out::Message(message)).await.map_err(|_| Closed)
            }
            _ => Ok(()),
        }
    }
}

async fn until_closed(closed: watch::Sender<bool>, work: impl Future<Output = ()>) {
    let mut over = closed.subscribe();
    tokio::select! {
        () = work => {}
        _ = over.wait_for(|over| *over) => {}
    }
    closed.send_replace(true);
}

async fn read<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<T>>,
    protocol: Protocol,
    mut senders: Vec<Option<mpsc::Sender<Bytes>>>,
    idle: Option<Duration>,
) {
    loop {
        let next = match idle {
            Some(idle) => tokio::time::timeout(idle, stream.next()).await.unwrap_or_default(),
            None => stream.next().await,
        };
        let Some(Ok(message)) = next else { return };
        match protocol.read(message, senders.len()) {
            Ok(Said::Data { channel, bytes }) => {
                if let Some(Some(sender)) = senders.get(usize::from(channel)) {
                    // Nobody reads it any more: so be it.
                    let _ = sender.send(bytes).await;
                }
            }
            Ok(Said::Close { channel }) => {
                if let Some(sender) = senders.get_mut(usize::from(channel)) {
                    *sender = None;
                }
            }
            Ok(Said::Nothing) => {}
            Err(_) => return,
        }
    }
}

async fn write<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    mut outgoing: mpsc::Receiver<Out>,
) {
    while let Some(out) = outgoing.recv().await {
        match out {
            Out::Message(message) => {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            Out::Close => {
                let _ = sink.send(normal_close()).await;
                // Now the peer answers, and the reader ends.
                return std::future::pending().await;
            }
        }
    }
}
