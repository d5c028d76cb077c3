//! What can go wrong with a cgroup.

use std::path::PathBuf;

use corten_sys::Errno;
use corten_sys::errno::describe;

use super::plan::Controller;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchies,

    #[error("cgroup controller {name} is not available: {remedy}")]
    Unavailable { name: &'static str, remedy: &'static str },

    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },

    #[error("cgroup {path} holds {count} processes already: two containers cannot share a cgroup", path = .path.display())]
    NotEmpty { path: PathBuf, count: usize },

    #[error("cgroup {path} is frozen: thaw or remove it, no process could start in it", path = .path.display())]
    Frozen { path: PathBuf },

    #[error("write {value:?} to {path}: {errno}{hint}", path = .path.display(), errno = describe(*.errno), hint = hint(.path, *.errno))]
    Write { path: PathBuf, value: String, errno: Errno },

    #[error("{action} {path}: {errno}{hint}", path = .path.display(), errno = describe(*.errno), hint = hint(.path, *.errno))]
    Io { action: &'static str, path: PathBuf, errno: Errno },

    #[error("read {path}: {content:?} is not {expected}", path = .path.display())]
    Unexpected { path: PathBuf, content: String, expected: &'static str },

    #[error("cgroup {path} still holds {count} processes after {seconds} s", path = .path.display())]
    Busy { path: PathBuf, count: usize, seconds: u64 },

    #[error("cgroup {path} did not become {state} within {seconds} s", path = .path.display())]
    Freeze { path: PathBuf, state: &'static str, seconds: u64 },

    #[error("device rules of {path} did not take: the kernel reports other rules than were written", path = .path.display())]
    DeviceRules { path: PathBuf },

    #[error("{action} the device program of {path}: {errno}", path = .path.display(), errno = describe(*.errno))]
    DeviceProgram { action: &'static str, path: PathBuf, errno: Errno },
}

impl CgroupError {
    pub(super) fn unavailable(controller: Controller) -> Self {
        let remedy = match controller {
            Controller::Hugetlb => {
                "remove linux.resources.hugepageLimits, or use a kernel with CONFIG_CGROUP_HUGETLB"
            }
            Controller::Network => {
                "net_cls and net_prio are cgroup v1 controllers: mount them, or remove linux.resources.network"
            }
            Controller::Rdma => "load the kernel's rdma controller, or remove linux.resources.rdma",
            Controller::Unified => "linux.resources.unified needs a cgroup v2 mount",
            _ => "mount it (cgroup v1), or enable it in cgroup.subtree_control of every parent (cgroup v2)",
        };
        Self::Unavailable { name: controller.label(), remedy }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io { action, path: path.into(), errno: errno(error) }
    }

    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}

/// The errno of an error that a system call returned.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// The likely cause, where the errno alone does not say it.
fn hint(path: &std::path::Path, errno: Errno) -> &'static str {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match (file, errno) {
        (_, Errno::ROFS) => " (the cgroup file system is mounted read-only)",
        (_, Errno::ACCESS | Errno::PERM) if file.starts_with("devices.") => {
            " (a parent cgroup denies the device)"
        }
        (file, Errno::BUSY) if file.starts_with("memory.") => {
            " (the processes use more than this and it cannot be reclaimed)"
        }
        (file, Errno::INVAL) if file.starts_with("memory.") => {
            " (memory.swap counts memory and swap together: it may not be below memory.limit)"
        }
        (file, Errno::NOENT) if file.starts_with("memory.memsw.") => {
            " (swap is not accounted: boot with swapaccount=1)"
        }
        (file, Errno::INVAL) if file.starts_with("cpu.") => {
            " (a parent cgroup allows less, or the value is out of range)"
        }
        (file, Errno::ACCESS | Errno::INVAL | Errno::RANGE) if file.starts_with("cpuset.") => {
            " (not a subset of what the parent cgroup has)"
        }
        (file, Errno::NODEV) if file.starts_with("blkio.") || file.starts_with("io.") => {
            " (no such block device)"
        }
        (file, Errno::NOENT) if file.contains("weight") => {
            " (the I/O scheduler in use has no weights: choose bfq, or remove the weight)"
        }
        (_, Errno::ACCESS) => " (needs root, or a cgroup delegated to this user)",
        (_, Errno::NOENT) => " (this kernel, or a parent's cgroup.subtree_control, does not offer it)",
        _ => "",
    }
}
