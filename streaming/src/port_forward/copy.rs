//! Bytes both ways between a stream and a connection.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::spdy::Stream;

const PIECE: usize = 32 << 10;

/// Until both directions have ended; each end is passed on by itself.
///
/// # Errors
/// `io` broke. That the client is gone is none: there is nobody to tell.
pub async fn copy<T: AsyncRead + AsyncWrite + Unpin>(stream: Stream, io: &mut T) -> io::Result<()> {
    let Stream { mut input, mut output } = stream;
    let (mut read, mut write) = tokio::io::split(io);
    let to_io = async {
        while let Some(bytes) = input.recv().await {
            write.write_all(&bytes).await?;
        }
        write.shutdown().await
    };
    let from_io = async {
        let mut piece = BytesMut::with_capacity(PIECE);
        loop {
            piece.reserve(PIECE);
            if read.read_buf(&mut piece).await? == 0 || output.send(piece.split().freeze()).await.is_err() {
                let _ = output.finish().await;
                return Ok(());
            }
        }
    };
    let (sent, received): (io::Result<()>, io::Result<()>) = tokio::join!(to_io, from_io);
    received.and(match sent {
        // The other side had closed already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    })
}
