//! Why a registry did not give what was asked.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::manifest::ManifestError;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{url}: {problem}")]
    Connect { url: String, problem: String },
    #[error("{url}: not found: no such image, tag or blob there")]
    NotFound { url: String },
    #[error(
        "{url}: HTTP {status}: access denied; are credentials missing or wrong, or does the image not exist?"
    )]
    Denied { url: String, status: u16 },
    #[error("{url}: HTTP {status}{}", .text.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Status { url: String, status: u16, text: Option<String> },
    #[error("{url}: no byte in {seconds} s: cancelled")]
    Stalled { url: String, seconds: u64 },
    #[error("{url}: answer is larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("{url}: ended after {got} of {want} bytes (truncated on the registry)")]
    Truncated { url: String, got: u64, want: u64 },
    #[error("{url}: more than the {want} bytes that the manifest announces")]
    Oversized { url: String, want: u64 },
    #[error("{url}: wrong digest: content is {found}, asked for {expected}")]
    Digest { url: String, expected: Digest, found: Digest },
    #[error("{url}: connection broke {failures} times in a row after {got} of {want} bytes: {problem}")]
    Broken { url: String, failures: u32, got: u64, want: u64, problem: String },
    #[error("{url}: redirect refused: {problem}")]
    Redirect { url: String, problem: &'static str },
    #[error("{url}: authentication: {problem}")]
    Auth { url: String, problem: String },
    #[error("{url}: {source}")]
    Manifest { url: String, source: ManifestError },
    #[error("registry configuration {}: {problem}", .path.display())]
    Config { path: PathBuf, problem: String },
    #[error("no host of the registry has the capability {0:?} (see its hosts.toml)")]
    NoHost(&'static str),
    #[error("all hosts failed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllHosts(Vec<RegistryError>),
    /// The receiving side gave up; its error is the one to report.
    #[error("transfer aborted")]
    Aborted,
}

impl RegistryError {
    pub fn not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            // A mirror that is down does not make an image exist that the others do not know.
            Self::AllHosts(errors) => {
                errors.iter().any(Self::not_found) && errors.iter().all(|e| e.not_found() || e.unreachable())
            }
            _ => false,
        }
    }

    pub fn denied(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Auth { .. } => true,
            Self::AllHosts(errors) => errors.iter().any(Self::denied),
            _ => false,
        }
    }

    /// Whether trying again later may help: the registry cannot be reached or is overloaded.
    pub fn unreachable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Stalled { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::AllHosts(errors) => errors.iter().any(Self::unreachable),
            _ => false,
        }
    }
}
