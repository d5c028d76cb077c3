//! WebSocket: channels in messages, and SPDY frames in messages.

pub mod channels;
mod mux;
mod tunnel;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

pub use channels::Protocol;
pub use mux::{ChannelWriter, Channels};
pub use tunnel::Tunnel;

/// A SPDY frame of the longest kind fits.
const MAX_MESSAGE: usize = (16 << 20) + 1024;

/// A connection whose handshake is done.
async fn socket<T: AsyncRead + AsyncWrite + Unpin>(io: T, role: Role) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE * 2)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// The server's end of a connection whose handshake is done, message by message.
pub async fn messages<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    socket(io, Role::Server).await
}

/// Go's clients take a close without a code for an error.
fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

pub use tokio_tungstenite::tungstenite::Message;
pub use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;
