//! corten-kubelet: runs the Pods of a directory of manifests on any CRI endpoint.
//!
//! The way of a pod: `manifest` (file → valid v1 Pod) → `kubelet` (which pods should be) → `pod::worker` (one task a
//! pod) → `pod::sync` (what to do next, pure) → CRI. It never knows which runtime answers.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod clock;
pub mod config;
pub mod cri;
pub mod dns;
pub mod events;
pub mod hosts;
pub mod kubelet;
pub mod lifecycle;
pub mod manifest;
mod mountinfo;
pub mod node;
pub mod pod;
pub mod probe;
pub mod quantity;
pub mod recorder;
pub mod server;
pub mod status;
pub mod status_api;
pub mod volume;

/// `ENOENT (No such file or directory)`.
pub(crate) fn errno_name(error: &std::io::Error) -> String {
    corten_sys::errno::Errno::from_io_error(error)
        .map_or_else(|| error.to_string(), corten_sys::errno::describe)
}
