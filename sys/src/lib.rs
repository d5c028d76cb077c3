//! The one place for raw system calls: everything else in the workspace calls these and forbids `unsafe`.
//!
//! Knows the kernel alone, nothing of OCI, CRI or CNI. One file per concern. Functions return the plain errno
//! ([`Errno`]); the caller adds what it tried, and on what, with [`Context`].

pub mod bpf;
pub mod caps;
pub mod errno;
pub mod exec;
pub mod fd;
pub mod keyring;
pub mod mount;
pub mod net;
pub mod netns;
pub mod ns;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod root;
pub mod sched;
pub mod scm;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod xtables;

pub use errno::{Context, Errno, Failure};
pub use root::Root;

/// What a single system call answers.
pub type Result<T> = std::result::Result<T, Errno>;
