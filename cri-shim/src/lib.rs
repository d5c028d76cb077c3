//! corten-cri: the CRI v1 daemon.
//!
//! | module | what | what it may not know |
//! |---|---|---|
//! | `rpc/` | one file per RPC, and the one wrapper around them all | the monitor's protocol, CNI |
//! | `sandbox/`, `container/` | state machines (pure) and records on disk | gRPC |
//! | `oci_spec/` | image config + CRI config → OCI spec (pure) | the machine it runs on |
//! | `cni/` | the caller's side of CNI | CRI |
//! | `monitor/` | the connection to a pod's monitor | everything above |
//! | `recover.rs` | startup: records + what exists → actions (pure), then applied | |
//!
//! The daemon never forks and touches no container process: it starts monitors and CNI plugins, by exec.
#![forbid(unsafe_code)]

pub mod cni;
pub mod config;
pub mod container;
pub mod daemon;
pub mod error;
pub mod files;
mod host;
pub mod id;
mod jobs;
pub mod monitor;
pub mod oci_spec;
pub mod recover;
pub mod rpc;
pub mod sandbox;
pub mod serve;
pub mod store;
