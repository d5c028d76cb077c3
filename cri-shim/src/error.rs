//! Why a call failed. What gRPC status that becomes is decided in one place, `rpc/mod.rs`.

use std::io;
use std::path::PathBuf;

use crate::cni::CniError;
use crate::files::FileError;
use crate::monitor::MonitorError;
use crate::oci_spec::SpecError;

/// What a client can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sandbox,
    Container,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "pod sandbox",
            Self::Container => "container",
        })
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no {kind} {id:?}")]
    Missing { kind: Kind, id: String },
    #[error("{kind} {id:?} is the start of more than one id: {first} and {second}")]
    Ambiguous { kind: Kind, id: String, first: String, second: String },
    #[error("{kind} name {name:?} is reserved for {id}; remove that one first")]
    NameTaken { kind: Kind, name: String, id: String },
    #[error("{field}: {why}")]
    Argument { field: &'static str, why: String },
    #[error("{what} is not supported: {why}")]
    Unsupported { what: &'static str, why: &'static str },
    #[error("{kind} {id} is {state}, not {wanted}")]
    State { kind: Kind, id: String, state: String, wanted: &'static str },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("pod network: {0}")]
    Cni(#[from] CniError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Image(#[from] corten_images::StoreError),
    #[error(transparent)]
    Pull(Box<corten_images::PullError>),
    #[error(transparent)]
    Import(Box<corten_images::ImportError>),
    #[error("{tried}: {}", io_text(source))]
    System { tried: String, source: io::Error },
    #[error("seccomp profile {path}: {why}")]
    Seccomp { path: PathBuf, why: String },
    #[error("{what} took longer than {limit_s} s")]
    Timeout { what: String, limit_s: u64 },
    #[error("{0}; and the cleanup after it: {1}; it will be tried again")]
    Undo(Box<Error>, Box<Error>),
    /// Work that several callers wait for failed.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
}

impl Error {
    pub fn system(tried: impl Into<String>, errno: corten_sys::Errno) -> Self {
        Self::System { tried: tried.into(), source: errno.into() }
    }

    pub fn argument(field: &'static str, why: impl Into<String>) -> Self {
        Self::Argument { field, why: why.into() }
    }
}

/// `ENOENT (No such file or directory)` and the like; what has no errno is shown as it is.
pub fn io_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let errno = nix::errno::Errno::from_raw(code);
            format!("{errno:?} ({})", errno.desc())
        }
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_os_error_is_named() {
        let text = io_text(&io::Error::from_raw_os_error(2));
        assert_eq!(text, "ENOENT (No such file or directory)");
    }
}
