//! One file per controller: which of its files take which value. Zero means "not set", as in runc.

pub(super) mod block_io;
pub(super) mod cpu;
pub(super) mod cpuset;
pub(super) mod hugetlb;
pub(super) mod memory;
pub(super) mod network;
pub(super) mod pids;
pub(super) mod rdma;
pub(super) mod unified;

/// `file=value` of each write, for tables.
#[cfg(test)]
fn shown(writes: &[super::Write]) -> Vec<String> {
    writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
}
