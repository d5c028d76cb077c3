//! A stream to the peer, over either transport.

use bytes::Bytes;

use crate::Closed;
use crate::spdy::Writer;
use crate::websocket::ChannelWriter;

/// [`Output::finish`] ends it; dropped before that, the peer sees it broken off where the transport can say so.
pub enum Output {
    Spdy(Writer),
    Channel(ChannelWriter),
}

impl Output {
    /// Waits while the peer does not take it.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), Closed> {
        match self {
            Self::Spdy(writer) => writer.send(bytes).await,
            Self::Channel(writer) if bytes.is_empty() => {
                let _ = writer;
                Ok(())
            }
            Self::Channel(writer) => writer.send(bytes).await,
        }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn finish(&mut self) -> Result<(), Closed> {
        match self {
            Self::Spdy(writer) => writer.finish().await,
            Self::Channel(writer) => writer.finish().await,
        }
    }
}
