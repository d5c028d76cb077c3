//! Joining a cgroup from a child that may not allocate.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_sys::Errno;

use super::detect::Version;
use super::error::{CgroupError, errno};
use super::{Cgroup, files};

/// Everything opened that a process needs to join. Made by the parent, used by the child after clone.
#[derive(Debug)]
pub struct Join {
    tasks: Vec<OwnedFd>,
    unified: Option<Unified>,
}

#[derive(Debug)]
struct Unified {
    dir: OwnedFd,
    procs: OwnedFd,
}

impl Join {
    /// The directory for `CLONE_INTO_CGROUP` (Linux 5.7), if the cgroup is on v2.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|unified| unified.dir.as_fd())
    }

    /// The calling thread joins every v1 hierarchy, by writing `0` to `tasks`: that does not take the thread-group
    /// lock, which costs 5 to 15 ms after an idle moment when a pid is written or `cgroup.procs` is used (measured).
    /// So the caller must have one thread only. Allocates nothing.
    pub fn enter_v1(&self) -> Result<(), Errno> {
        self.tasks.iter().try_for_each(|tasks| enter(tasks.as_fd()))
    }

    /// The calling process joins the v2 hierarchy, where it was not cloned into it. Allocates nothing.
    pub fn enter_v2(&self) -> Result<(), Errno> {
        self.unified.as_ref().map_or(Ok(()), |unified| enter(unified.procs.as_fd()))
    }
}

fn enter(file: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(file, b"0").map(drop)
}

impl Cgroup {
    /// Open what a child needs to join this cgroup.
    pub fn join(&self) -> Result<Join, CgroupError> {
        let open = |path: std::path::PathBuf| -> Result<OwnedFd, CgroupError> {
            let file = OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).map_err(|error| CgroupError::Io {
                action: "open",
                path,
                errno: errno(&error),
            })
        };
        let mut join = Join { tasks: Vec::with_capacity(self.members.len()), unified: None };
        for member in &self.members {
            match member.version {
                Version::V1 => join.tasks.push(open(member.path.join("tasks"))?),
                Version::V2 => {
                    let dir = File::open(&member.path)
                        .map_err(|error| CgroupError::io("open", &member.path, &error))?;
                    join.unified =
                        Some(Unified { dir: dir.into(), procs: open(member.path.join("cgroup.procs"))? });
                }
            }
        }
        Ok(join)
    }

    /// Move another process in. Slower than [`Join`] on v1; for a process that cannot join by itself.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.members
            .iter()
            .try_for_each(|member| files::write(&member.path.join("cgroup.procs"), &pid.to_string()))
    }
}
