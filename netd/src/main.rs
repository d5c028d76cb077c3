//! `corten-netd`.
#![forbid(unsafe_code)]

fn main() {}
