//! corten-cri

pub mod monitor;
