//! port-forward: for each connection a pair of streams, data and error. Source: the kubelet's
//! `cri/streaming/portforward/httpstream.go`.

mod copy;
mod server;

pub use copy::copy;
pub use server::{Forward, Server};

/// The stream protocol, over SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// The same with its frames in WebSocket messages.
pub const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
