//! exec and attach: standard streams, an error stream with the outcome, sizes of the terminal. Source: apimachinery
//! `pkg/util/remotecommand`, the kubelet's `cri/streaming/remotecommand`.

mod client;
mod output;
mod resize;
mod server;
mod status;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use client::{ClientError, ClientSession, connect, size_message};
pub use output::Output;
pub use resize::{Resizes, Size};
pub use server::{ServeError, Session, serve};
pub use status::Outcome;

/// The stream protocols of SPDY, the one we like best first.
pub const SPDY_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// For a client to open all the streams that it asked for.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// Pieces of a stream; it ends when the peer has no more or is gone.
pub type Input = mpsc::Receiver<Bytes>;

/// Which streams there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("you must specify at least 1 of stdin, stdout, stderr")]
pub struct NoStreams;

impl Options {
    /// As a kubelet reads them: a terminal has one output only.
    pub fn normalized(mut self) -> Result<Self, NoStreams> {
        if self.tty {
            self.stderr = false;
        }
        if self.stdin || self.stdout || self.stderr { Ok(self) } else { Err(NoStreams) }
    }
}
