//! What `net-probe` does inside a namespace: answer, ask who answers, count round trips, move bytes and check each one.
//!
//! Every result is plain data that the program prints as one line of JSON and the caller reads back.

pub mod bulk;
pub mod enter;
mod pattern;
pub mod rounds;
pub mod serve;
pub mod who;

use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// First byte of a TCP connection or of a datagram: what the client wants.
mod wish {
    /// The server's name and the address it sees, then the end.
    pub const WHO: u8 = b'w';
    /// Four bytes of length (big endian), then that many bytes back for each that many bytes sent.
    pub const ROUNDS: u8 = b'r';
    /// Everything back as it came.
    pub const ECHO: u8 = b'e';
}

/// How long a single answer may take. Below the kernel's first SYN retransmission plus what a crowded machine adds,
/// so that a path which loses its first packet is seen as broken.
pub const PATIENCE: Duration = Duration::from_millis(2500);

/// Binds the calling process to one CPU.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
