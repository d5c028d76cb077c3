//! What can go wrong, by what a caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::api::{LeaseId, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision};

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// List anew and go on from there (HTTP 410).
    #[error("revision {asked} is history no longer: the oldest that can be asked for is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// Of another store, or of one restored from an older snapshot.
    #[error("revision {asked} is not reached yet")]
    Future { asked: Revision },
    #[error("there is no lease {0}: it has run out or was revoked")]
    NoLease(LeaseId),
    #[error("a key has 1 to {MAX_KEY_BYTES} bytes, not {bytes}")]
    Key { bytes: usize },
    #[error("a value of {bytes} bytes is more than the store takes (at most {MAX_VALUE_BYTES})")]
    TooLarge { bytes: usize },
    #[error("this etcd tells a watch's progress too early; update it to 3.4.31, 3.5.13 or later")]
    NoProgress,
    /// Nothing was changed, nothing is lost. Goes by itself once there is room.
    #[error("{what} is full (ENOSPC); make room, writes go on then")]
    NoSpace { what: String },
    /// What is on disk is not what was written. Never served; restore a snapshot.
    #[error("{} is damaged: {what}; restore a snapshot", file.display())]
    Corrupted { file: PathBuf, what: String },
    #[error("{} is not a store of this program: {what}", file.display())]
    Foreign { file: PathBuf, what: String },
    #[error("{} is opened by another process", file.display())]
    InUse { file: PathBuf },
    #[error("cannot {doing} {}: {error}", file.display())]
    File { doing: &'static str, file: PathBuf, error: String },
    #[error("the store is not empty: a snapshot is restored into a new one")]
    NotEmpty,
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(String),
    /// The server behind the store cannot be reached. A write may have happened.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else that the server behind the store refused.
    #[error("{0}")]
    Refused(String),
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// A failed operation on a file of the store.
    pub(crate) fn file(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        let file = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { what: format!("the file system of {}", file.display()) }
            }
            // Of a file that was cut short, or has nonsense where redb's header is.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::Corrupted { file, what: error.to_string() }
            }
            _ => Self::File { doing, file, error: error.to_string() },
        }
    }

    /// Says in which file it was found.
    pub(crate) fn found_in(self, path: &Path) -> Self {
        match self {
            Self::Corrupted { file, what } if file.as_os_str().is_empty() => {
                Self::Corrupted { file: path.to_owned(), what }
            }
            other => other,
        }
    }
}
