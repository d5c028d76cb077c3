//! `cargo xtask`: everything about this repository that is not `cargo build`.
#![forbid(unsafe_code)]

fn main() {}
