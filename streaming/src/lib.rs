//! Streams of exec, attach and port-forward: SPDY/3.1 and WebSocket, for the API server and the CRI daemon.
//!
//! [`upgrade`] reads what a client asks for and what to answer; then [`remote_command`] and [`port_forward`] take the
//! connection, whichever transport it has become. Frames are parsed apart from I/O ([`spdy::frame`],
//! [`websocket::channels`]); everything that a peer can make grow has a bound.
#![forbid(unsafe_code)]

pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

/// The peer, or the connection to it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct Closed;
