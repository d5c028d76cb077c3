//! CRI v1 messages, client and server stubs, generated from `proto/runtime.proto`, and those of `proto/corten.proto`.
#![forbid(unsafe_code)]

/// Package `runtime.v1`.
#[allow(clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Package `corten.v1`: image import and pull progress, served on the CRI socket.
#[allow(clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod corten_v1 {
    tonic::include_proto!("corten.v1");
}
