//! One stream: bytes in, bytes out, each of which ends on its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::connection::{Out, Shared};
use super::frame::{Control, Reset};
use crate::Closed;

/// A frame's worth; longer writes are cut.
const CHUNK: usize = 64 << 10;

pub struct Stream {
    /// Ends when the peer has finished, has reset the stream, or is gone.
    pub input: mpsc::Receiver<Bytes>,
    pub output: Writer,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the peer refused the stream")]
    Reset,
    #[error("the peer did not answer for a new stream in time")]
    Timeout,
    #[error("the connection is closed")]
    Closed,
}

/// Dropped before [`Writer::finish`], it resets the stream.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u32,
    pub(super) finished: bool,
}

impl Writer {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits while the peer does not take it.
    ///
    /// # Errors
    /// The peer has reset the stream or is gone.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            if self.finished || !self.shared.has(self.id) {
                return Err(Closed);
            }
            self.shared.send(Out::Data { stream: self.id, fin: false, bytes: chunk }).await?;
        }
        Ok(())
    }

    /// Says that nothing more comes; the peer may go on.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn finish(&mut self) -> Result<(), Closed> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.shared.finish_local(self.id);
        self.shared.send(Out::Data { stream: self.id, fin: true, bytes: Bytes::new() }).await
    }

    /// Ends both directions.
    pub fn reset(mut self, status: Reset) {
        self.finished = true;
        self.shared.reset(self.id, status);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished && self.shared.has(self.id) {
            self.shared.reset(self.id, Reset::Cancel);
        }
    }
}

impl Shared {
    pub(super) fn reset(self: &Arc<Self>, stream: u32, status: Reset) {
        self.forget(stream);
        self.send_later(Out::Control(Control::RstStream { stream, status }));
    }
}
