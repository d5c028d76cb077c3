//! The loader of the fast path: the committed kernel object, its maps as typed tables, attaching, pinning.
//!
//! The kernel programs are in `programs/`, a workspace of its own, built by `cargo xtask ebpf build`. [`datapath`]
//! loads the tc programs, [`socket`] the cgroup programs; neither knows where entries come from.

mod batch;
pub mod datapath;
mod link;
mod mapped;
mod plain;
pub mod socket;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../fastpath.bpf.o");

/// Entries of a map that is made and never used. A ring buffer's are bytes, in whole pages.
const SMALLEST: u32 = 4096;
