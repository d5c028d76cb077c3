//! corten-kubelet: runs the Pods of a directory of manifests on any CRI endpoint.
#![forbid(unsafe_code)]

pub mod quantity;
pub mod status_api;
