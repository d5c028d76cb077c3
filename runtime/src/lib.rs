//! OCI runtime as a library: everything that `corten-oci` and the pod monitor do to run a container.
//!
//! The caller's process must have one thread; it is the parent of every container process it makes, and reaps it. The
//! library keeps no state of its own, prints nothing and never ends the process: warnings come back with the answer.
//!
//! A configuration becomes a [`plan::Plan`] first, which is pure and holds all validation; [`init`] carries it out. Each
//! operation is one file of [`op`].
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cgroup;
mod error;
mod hooks;
mod init;
mod op;
pub mod plan;
pub mod seccomp;
mod state;

pub use error::{ConfigError, Error};
pub use hooks::HookError;
pub use init::child::Stdio;
pub use op::{Console, CreateRequest, Created, ExecRequest, Executed, Runtime};
pub use state::{State, Status, rfc3339};

/// The version of the runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.3.0";
