//! What can fail. One enum per kind of failure; every message names the thing and, where a system call failed, the
//! errno. Texts that clients match (containerd, podman) are runc's.

use std::path::PathBuf;

use corten_sys::Failure;

use crate::cgroup::CgroupError;
use crate::hooks::HookError;
use crate::seccomp::SeccompError;
use crate::state::Status;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container {0:?} does not exist")]
    NotFound(String),
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    #[error(
        "invalid container ID format: {0:?} (at most 1024 of [a-zA-Z0-9_+.-], not beginning with '.' or '-')"
    )]
    InvalidId(String),
    #[error("{config}: {source}", config = config.display())]
    Config { config: PathBuf, source: ConfigError },
    #[error("process: {0}")]
    Process(#[from] ConfigError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Os(#[from] Failure),
    /// The text of init itself, which ran in the container's namespaces.
    #[error("unable to start container process: {0}")]
    Init(String),
    #[error(
        "unable to start container process: init ended ({0}) before it was ready (killed, or out of memory?)"
    )]
    InitEnded(String),
    #[error("cannot {action} container {id:?}: it is {status}")]
    WrongStatus { action: &'static str, id: String, status: Status },
    #[error("container not running")]
    NotRunning,
    #[error("state record {path}: {source}", path = path.display())]
    Record { path: PathBuf, source: serde_json::Error },
}

/// What is wrong with a config.json or process.json.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read: {0}")]
    Read(#[from] Failure),
    #[error("not valid: {0}")]
    Parse(#[from] serde_json::Error),
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
    #[error("{field} is not supported: {remedy}")]
    Unsupported { field: String, remedy: &'static str },
}

impl ConfigError {
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub fn unsupported(field: impl Into<String>, remedy: &'static str) -> Self {
        Self::Unsupported { field: field.into(), remedy }
    }
}
