//! The monitor of one pod: it starts and holds the pod's containers, writes their logs and exit records, and outlives
//! the daemon. One thread, one loop over descriptors, no async runtime.
//!
//! `protocol`, `socket`, `layout`, `record` and `process` are for both sides; the daemon's own side (a connection as a
//! tokio type) is `corten_cri::monitor`.
#![forbid(unsafe_code)]

mod built_in_runtime;
mod clients;
mod container;
mod external_runtime;
mod kill_tree;
pub mod layout;
mod log_writer;
pub mod mount_namespace;
mod oci;
mod oom;
mod own_log;
pub mod pause;
mod pod;
mod poller;
pub mod process;
pub mod protocol;
mod reaper;
pub mod record;
pub mod serve;
pub mod socket;
mod stream;
pub mod sweep;
mod timestamp;
