//! CNI plugins in one multi-call binary: bridge, firewall, flannel, host-local, loopback, portmap, tuning.
//!
//! A call is one short process: [`command`] picks the plugin by its name, [`skel`] reads and checks what the runtime
//! said (environment and stdin), one function of [`plugin`] acts, [`command`] prints. Synchronous and single-threaded:
//! a thread would make entering network namespaces unsafe, a reactor would cost more than the work.
//!
//! State on disk and names of rules are those of containernetworking/plugins, so either can undo the other's work.
#![forbid(unsafe_code)]

pub mod command;
mod delegate;
pub mod error;
mod files;
mod frame;
pub mod install;
mod ipam;
mod masquerade;
mod owner;
pub mod plugin;
pub mod skel;
mod spoof;
mod sysctl;
pub mod types;

pub use error::{Code, Error};

/// What every function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
