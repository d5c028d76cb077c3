//! Scheduling: policy, I/O priority, CPU affinity, memory policy.

use crate::fd::check;
use crate::{Errno, Result};

/// `struct sched_attr` (sched_setattr(2), 56 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    size: u32,
    /// `SCHED_OTHER` 0, `SCHED_FIFO` 1, `SCHED_RR` 2, `SCHED_BATCH` 3, `SCHED_ISO` 4, `SCHED_IDLE` 5,
    /// `SCHED_DEADLINE` 6.
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, `SCHED_DEADLINE` only.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets policy and priority of this process.
pub fn set_scheduler(mut attributes: SchedAttr) -> Result<()> {
    attributes.size = size_of::<SchedAttr>() as u32;
    // SAFETY: no safe crate has sched_setattr(2). The structure is ours, of the size it says, and only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) }).map(drop)
}

/// Sets the I/O priority of this process. `class`: 1 real time, 2 best effort, 3 idle; `level` 0-7.
pub fn set_io_priority(class: u16, level: u16) -> Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    let value = libc::c_long::from(class) << 13 | libc::c_long::from(level);
    // SAFETY: ioprio_set(2) takes three integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the CPUs this process may run on, from a list such as `0-3,8`.
pub fn set_affinity(cpus: &[u32]) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus {
        if *cpu as usize >= rustix::thread::CpuSet::MAX_CPU {
            return Err(Errno::INVAL);
        }
        set.set(*cpu as usize);
    }
    rustix::thread::sched_setaffinity(None, &set)
}

/// Sets the NUMA memory policy of this process. `mode` with its flags as in set_mempolicy(2); `nodes`: node numbers.
pub fn set_memory_policy(mode: i32, nodes: &[u32]) -> Result<()> {
    let mut mask = [0_u64; 16];
    for node in nodes {
        let word = mask.get_mut(*node as usize / 64).ok_or(Errno::INVAL)?;
        *word |= 1 << (node % 64);
    }
    // SAFETY: no safe crate has set_mempolicy(2). The mask is ours and the number of its bits is passed (the kernel
    // reads one bit less than maxnode says, hence +1); it is only read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), mask.len() * 64 + 1) })
        .map(drop)
}

/// `0-3,8` → `[0, 1, 2, 3, 8]`. None when it is no such list or names more than `limit` numbers.
pub fn parse_list(text: &str, limit: usize) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || numbers.len() + (last - first) as usize + 1 > limit {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_parse_within_bounds() {
        assert_eq!(parse_list("0-2,5", 16), Some(vec![0, 1, 2, 5]));
        for bad in ["", "3-1", "a", "1-", "0-4294967295", "0-16"] {
            assert_eq!(parse_list(bad, 16), None, "{bad:?}");
        }
    }

    #[test]
    fn sched_attr_has_the_kernels_size() {
        assert_eq!(size_of::<SchedAttr>(), 56);
    }
}
