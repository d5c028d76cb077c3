//! Why a layer could not be unpacked.

use std::fmt;
use std::io;

use crate::digest::Digest;
use crate::errno::Errno;

/// A path out of a layer, printed with escapes and cut: it is hostile.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryPath(pub Vec<u8>);

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(200)];
        write!(f, "\"{}\"{}", cut.escape_ascii(), if cut.len() < self.0.len() { "..." } else { "" })
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&[u8]> for EntryPath {
    fn from(path: &[u8]) -> Self {
        Self(path.to_vec())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("layer entry {path} escapes the image: {how}")]
    Escape { path: EntryPath, how: &'static str },
    #[error("layer is no valid tar: {0}")]
    Tar(String),
    #[error("layer entry {path}: {problem}")]
    Entry { path: EntryPath, problem: String },
    #[error("layer exceeds the limit of {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("layer entry {path}: hard link to {target}, which is in neither this layer nor one below")]
    HardlinkTarget { path: EntryPath, target: EntryPath },
    #[error("layer cannot be read or decompressed: {0}")]
    Read(io::Error),
    #[error("layer unpacks to {found}, the image config says {expected} (diff id)")]
    DiffId { expected: Digest, found: Digest },
    #[error("{operation} {path} while unpacking: {errno}")]
    Write { operation: &'static str, path: EntryPath, errno: Errno },
}

impl UnpackError {
    /// Whether the layer's bytes are at fault, not this machine: then the registry sent wrong bytes or the image is
    /// broken, and another mirror may do better.
    pub fn blames_content(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }

    pub(super) fn write(operation: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Write { operation, path: path.into(), errno: errno.into() }
    }
}
