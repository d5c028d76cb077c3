//! The monitor of one pod: it starts and holds the pod's containers, writes their logs and exit records, and outlives
//! the daemon. One thread, one loop over descriptors, no async runtime.
//!
//! The daemon's side (a connection as a tokio type) is `corten_cri::monitor`.
#![forbid(unsafe_code)]

pub mod layout;
pub mod process;
pub mod protocol;
pub mod record;
pub mod socket;
