//! Why a monitor could not be asked.

use std::io;
use std::path::PathBuf;

use corten_monitor::protocol::{Failure, FailureKind};

#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The monitor understood and refused, or the runtime did.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// No monitor serves this directory (any more). Its containers are unwatched: [`super::sweep_dead`].
    #[error("the monitor of {dir} is dead{why}")]
    Dead { dir: PathBuf, why: String },
    /// The connection ended although the monitor lives; [`super::Monitor::connect`] may reach it again.
    #[error("the monitor of {dir} (pid {pid}) closed the connection")]
    Disconnected { dir: PathBuf, pid: i32 },
    #[error("start monitor {program}: {source}")]
    Start { program: PathBuf, source: io::Error },
    #[error("{what} of the monitor of {dir}: {source}")]
    Io { what: &'static str, dir: PathBuf, source: io::Error },
    #[error("the monitor of {dir} speaks protocol {theirs}, this daemon {ours}")]
    Version { dir: PathBuf, theirs: u32, ours: u32 },
    #[error("sweep {dir}: {text}")]
    Sweep { dir: PathBuf, text: String },
    #[error("the monitor of {dir} answered {call} with {answer}")]
    Confused { dir: PathBuf, call: &'static str, answer: String },
    #[error("a request of {bytes} bytes to a monitor is longer than {limit}")]
    TooLong { bytes: usize, limit: usize },
}

impl MonitorError {
    /// The monitor's verdict, where it gave one.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Refused(failure) => Some(failure.kind),
            _ => None,
        }
    }

    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead { .. })
    }
}
