//! Network namespaces by path: open, compare, run a piece of code inside one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, fstatfs};

#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// Nothing is there: ENOENT, or ENXIO and ENOTDIR on the way.
    #[error("open network namespace {}: {errno:?} (it is gone)", path.display())]
    Gone { path: PathBuf, errno: Errno },
    /// A file, but not a namespace: the bind mount is gone and its mount point was left.
    #[error("open network namespace {}: it is an ordinary file (its bind mount is gone)", path.display())]
    NotANamespace { path: PathBuf },
    #[error("{call} network namespace {}: {errno:?} ({})", path.display(), errno.desc())]
    Call { call: &'static str, path: PathBuf, errno: Errno },
}

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, NetNsError> {
        let path = path.into();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) => {
                return Err(match errno(&e) {
                    errno @ (Errno::ENOENT | Errno::ENXIO | Errno::ENOTDIR | Errno::ESRCH) => {
                        NetNsError::Gone { path, errno }
                    }
                    errno => NetNsError::Call { call: "open", path, errno },
                });
            }
        };
        let kind = match fstatfs(&file) {
            Ok(stat) => stat.filesystem_type(),
            Err(errno) => return Err(NetNsError::Call { call: "statfs", path, errno }),
        };
        // Linux before 3.19 shows namespaces in procfs itself.
        if kind != NSFS_MAGIC && kind != PROC_SUPER_MAGIC {
            return Err(NetNsError::NotANamespace { path });
        }
        Ok(Self { file, path })
    }

    /// The calling thread's own.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_same(&self, other: &Self) -> Result<bool, NetNsError> {
        Ok(self.identity()? == other.identity()?)
    }

    fn identity(&self) -> Result<(u64, u64), NetNsError> {
        let stat = fstat(&self.file).map_err(|errno| self.failed("stat", errno))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Runs `inside` with this as the calling thread's network namespace, then returns to the former one. Sockets
    /// opened inside stay bound to it. Children started inside inherit it.
    ///
    /// # Errors
    /// When entering fails (`inside` did not run) or, which a privileged thread never sees, when returning does.
    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> Result<T, NetNsError> {
        let former = Self::current()?;
        self.enter()?;
        let result = inside();
        former.enter()?;
        Ok(result)
    }

    fn enter(&self) -> Result<(), NetNsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| self.failed("enter", errno))
    }

    fn failed(&self, call: &'static str, errno: Errno) -> NetNsError {
        NetNsError::Call { call, path: self.path.clone(), errno }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_no_namespace_are_told_apart() {
        assert!(matches!(NetNs::open("/nonexistent/netns"), Err(NetNsError::Gone { .. })));
        assert!(matches!(NetNs::open("/proc/self/ns/net/x"), Err(NetNsError::Gone { .. })));
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(NetNs::open(file.path()), Err(NetNsError::NotANamespace { .. })));
    }

    #[test]
    fn code_runs_inside_and_the_thread_comes_back() {
        let before = NetNs::current().expect("own namespace");
        let other = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("unshare, as root");
            NetNs::current().expect("the new namespace")
        });
        let other = other.join().expect("the thread");
        assert!(!before.is_same(&other).expect("comparable"));
        let inside = other.run(|| NetNs::current().expect("inside")).expect("entered and left");
        assert!(inside.is_same(&other).expect("comparable"));
        assert!(NetNs::current().expect("after").is_same(&before).expect("comparable"));
    }
}
