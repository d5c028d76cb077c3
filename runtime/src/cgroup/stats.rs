//! What a cgroup uses now.

use super::detect::Version;
use super::error::CgroupError;
use super::plan::Controller;
use super::{Cgroup, files};

/// `None`: this host has no such controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used since the cgroup was made, in nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Bytes, page cache included.
    pub memory_usage: Option<u64>,
    /// Bytes that cannot be reclaimed easily: usage without inactive page cache, as the kubelet counts.
    pub memory_working_set: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Cgroup {
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let (memory_usage, memory_working_set) = self.memory_use()?;
        let pids = self.path_of(Controller::Pids).map(|dir| files::number(&dir.join("pids.current")));
        Ok(Stats {
            cpu_usage_ns: self.cpu_use()?,
            memory_usage,
            memory_working_set,
            pids: pids.transpose()?.flatten(),
        })
    }

    fn cpu_use(&self) -> Result<Option<u64>, CgroupError> {
        if let Some(dir) = self.path_of(Controller::CpuAccounting) {
            return files::number(&dir.join("cpuacct.usage"));
        }
        let Some(member) = self.v2() else { return Ok(None) };
        Ok(files::keyed(&member.path.join("cpu.stat"), "usage_usec")?.map(|microseconds| microseconds * 1000))
    }

    fn memory_use(&self) -> Result<(Option<u64>, Option<u64>), CgroupError> {
        let Some(member) = self.member(Controller::Memory) else { return Ok((None, None)) };
        let (usage, inactive) = match member.version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        let usage = files::number(&member.path.join(usage))?;
        let inactive = files::keyed(&member.path.join("memory.stat"), inactive)?.unwrap_or(0);
        Ok((usage, usage.map(|usage| usage.saturating_sub(inactive))))
    }
}
