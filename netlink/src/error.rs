//! What can go wrong between us and the kernel.

use std::io;

use nix::errno::Errno;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused the request. `detail` is its extended acknowledgement, often the only hint at the cause.
    #[error("{what}: {errno:?} ({})", detail.as_deref().unwrap_or(errno.desc()))]
    Refused { what: String, errno: Errno, detail: Option<String> },
    /// The socket failed: it could not be opened, or the kernel had no memory for the reply (ENOBUFS).
    #[error("{what}: {:?} ({})", errno(.source), errno(.source).desc())]
    Io { what: String, source: io::Error },
    /// The kernel answered with something this crate does not read.
    #[error("{what}: malformed reply ({why})")]
    Malformed { what: String, why: &'static str },
    /// A dump changed under us more often than we read it again.
    #[error("{what}: the kernel's table changed during each of {tries} dumps (retry when it is quieter)")]
    Interrupted { what: String, tries: u32 },
}

impl NetlinkError {
    /// The errno of a refusal or of a failed call.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => Some(errno(source)),
            Self::Malformed { .. } | Self::Interrupted { .. } => None,
        }
    }

    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
