//! SPDY/3.1 as moby/spdystream speaks it: streams with headers over one connection. Its windows and settings are read
//! and ignored, as there: who does not read holds the peer back.

mod connection;
mod dictionary;
pub mod frame;
mod headers;
mod stream;

pub use connection::{Config, Connection, Incoming, Side};
pub use frame::{FrameError, Reset};
pub use headers::{Deflater, Headers, Inflater};
pub use stream::{OpenError, Stream, Writer};
