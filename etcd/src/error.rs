//! What can go wrong, by what a caller does about it.

use std::path::PathBuf;

use tonic::{Code, Status};

use crate::Revision;
use crate::config::chain;

#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    #[error("etcd endpoint {url}: {why}")]
    Endpoint { url: String, why: String },
    #[error("cannot read {}: {error}", file.display())]
    File { file: PathBuf, error: std::io::Error },
    /// No endpoint could be connected to; nothing was sent.
    #[error("cannot connect to etcd: {tried}")]
    Unreachable { tried: String },
    /// The connection broke or the member has no leader. A write may have happened.
    #[error("etcd at {url} {what}")]
    Unavailable { url: String, what: String },
    /// The revision asked for is history no longer: list anew.
    #[error("etcd has compacted the revision asked for (the oldest it has is {oldest:?})")]
    Compacted { oldest: Option<Revision> },
    /// A revision that is not there yet; of another cluster, or of one restored from a backup.
    #[error("etcd has not reached the revision asked for; was it restored from a backup?")]
    Future,
    #[error("etcd has no lease {0:x}: it has run out or was revoked")]
    NoLease(i64),
    #[error("etcd refuses user {user}: {why}")]
    Authentication { user: String, why: String },
    #[error("etcd refuses this user what was asked ({0})")]
    Denied(String),
    #[error("etcd's database is full; compact, defragment, and disarm its alarm (etcdctl alarm disarm)")]
    NoSpace,
    /// Anything else that etcd said.
    #[error("etcd: {message} ({code:?})")]
    Server { code: Code, message: String },
    /// The answer is not one to the request.
    #[error("etcd gave no {0} in its answer")]
    Malformed(&'static str),
}

impl EtcdError {
    /// May be gone when asked again later.
    pub fn passes(&self) -> bool {
        match self {
            EtcdError::Unreachable { .. } | EtcdError::Unavailable { .. } | EtcdError::NoSpace => true,
            EtcdError::Server { code, .. } => {
                matches!(
                    code,
                    Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Internal
                )
            }
            _ => false,
        }
    }

    /// What `status` of the member at `url` means. etcd's errors are known by their text.
    /// Source: etcd `api/v3rpc/rpctypes/error.go`.
    pub(crate) fn of(url: &str, status: &Status) -> Self {
        let message = status.message();
        if message.contains("required revision has been compacted") {
            return Self::Compacted { oldest: None };
        }
        if message.contains("required revision is a future revision") {
            return Self::Future;
        }
        if message.contains("requested lease not found") {
            return Self::NoLease(0);
        }
        if message.contains("database space exceeded") {
            return Self::NoSpace;
        }
        match status.code() {
            Code::Unavailable => Self::Unavailable { url: url.to_owned(), what: cause(status) },
            // A broken connection; etcd itself does not use this code.
            Code::Unknown | Code::Cancelled if std::error::Error::source(status).is_some() => {
                Self::Unavailable { url: url.to_owned(), what: cause(status) }
            }
            Code::PermissionDenied => Self::Denied(message.to_owned()),
            code => Self::Server { code, message: message.to_owned() },
        }
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Server { code: Code::DeadlineExceeded, .. })
    }
}

fn cause(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("broke the connection: {}", chain(source)),
        None => format!("says: {}", status.message()),
    }
}

/// The token has run out, or the server that gave it has restarted; nothing was done.
pub(crate) fn token_is_stale(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("invalid auth token")
}
