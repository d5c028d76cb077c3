//! Learning that the kernel ran out of a cgroup's memory.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use corten_sys::signal::eventfd;
use rustix::fs::inotify;

use super::detect::Version;
use super::error::CgroupError;
use super::plan::Controller;
use super::{Cgroup, Member, files};

/// A file descriptor that becomes readable when memory ran out (v1) or when `memory.events` changed (v2), and when
/// the cgroup is removed. After it did, [`OomEvents::drain`] it and ask [`Cgroup::oom_kills`] for the truth.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
}

impl OomEvents {
    /// Empty the descriptor so that it can be waited for again.
    pub fn drain(&self) {
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Cgroup {
    pub fn oom_events(&self) -> Result<OomEvents, CgroupError> {
        let member = self.memory()?;
        let fd = match member.version {
            Version::V1 => eventfd_v1(member)?,
            Version::V2 => inotify_v2(member)?,
        };
        Ok(OomEvents { fd })
    }

    /// How many processes of the cgroup the OOM killer has taken so far.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let member = self.memory()?;
        let file = match member.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Ok(files::keyed(&member.path.join(file), "oom_kill")?.unwrap_or(0))
    }

    fn memory(&self) -> Result<&Member, CgroupError> {
        self.member(Controller::Memory).ok_or_else(|| CgroupError::unavailable(Controller::Memory))
    }
}

fn eventfd_v1(member: &Member) -> Result<OwnedFd, CgroupError> {
    let path = member.path.join("memory.oom_control");
    let control = File::open(&path).map_err(|error| CgroupError::io("open", &path, &error))?;
    let events = eventfd().map_err(|errno| CgroupError::io("make an eventfd for", &path, &errno.into()))?;
    files::write(
        &member.path.join("cgroup.event_control"),
        &format!("{} {}", events.as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok(events)
}

fn inotify_v2(member: &Member) -> Result<OwnedFd, CgroupError> {
    let path = member.path.join("memory.events");
    let failed = |errno: rustix::io::Errno| CgroupError::io("watch", &path, &errno.into());
    let events =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
    inotify::add_watch(&events, &path, inotify::WatchFlags::MODIFY).map_err(failed)?;
    Ok(events)
}
