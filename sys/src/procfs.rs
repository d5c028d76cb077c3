//! One trusted procfs, and what is read from it.
//!
//! A /proc inside a container may be covered or replaced (CVE-2019-16884, CVE-2025-52881), so a process that may stand
//! in one uses its own detached instance, and resolves below it without leaving it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, openat2};
use rustix::mount::MountAttrFlags;

use crate::{Errno, Result, mount};

#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// A detached procfs of the caller's pid namespace, which nothing can be mounted over. Needs CAP_SYS_ADMIN.
    pub fn detached() -> Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        mount::filesystem("proc", "proc", &[], attributes).map(Self)
    }

    /// The host's /proc, for a process that never entered a container's mount namespace.
    pub fn host() -> Result<Self> {
        Self::verified(crate::root::host_handle("/proc")?)
    }

    /// Takes a directory as procfs after checking that it is the root of one.
    ///
    /// # Errors
    /// EINVAL: another file system.
    pub fn verified(fd: OwnedFd) -> Result<Self> {
        if fstatfs(&fd)?.f_type != PROC_SUPER_MAGIC || rustix::fs::fstat(&fd)?.st_ino != 1 {
            return Err(Errno::INVAL);
        }
        Ok(Self(fd))
    }

    /// Opens a file of this procfs; mounts over it, links that leave it and magic links are refused.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), how)
    }

    pub fn read(&self, path: impl AsRef<Path>) -> Result<String> {
        // Their size reads 0, and an empty buffer would be filled in steps of 32 bytes.
        let mut text = String::with_capacity(4096);
        let file = self.open(path, OFlags::RDONLY)?;
        std::fs::File::from(file).read_to_string(&mut text).map_err(|error| errno_of(&error))?;
        Ok(text)
    }

    /// Writes in one write(2), as procfs wants it.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let file = self.open(path, OFlags::WRONLY)?;
        std::fs::File::from(file).write_all(text.as_bytes()).map_err(|error| errno_of(&error))
    }

    /// Start time of a process, in clock ticks since boot. With the pid it names one process for good.
    pub fn start_time(&self, pid: i32) -> Result<u64> {
        Stat::parse(&self.read(format!("{pid}/stat"))?).map(|stat| stat.start_time).ok_or(Errno::IO)
    }

    pub fn stat(&self, pid: i32) -> Result<Stat> {
        Stat::parse(&self.read(format!("{pid}/stat"))?).ok_or(Errno::IO)
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The fields of /proc/PID/stat that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` (zombie), `X` (dead), ...
    pub state: char,
    pub parent: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// The command name may hold spaces and parentheses: fields count from the last `)`.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start_time })
    }

    pub fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_command_name() {
        let text = "42 (a) R 1 (x) Z 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1000 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), ('Z', 7, 987));
        assert_eq!(Stat::parse("42 (cut"), None);
    }

    #[test]
    fn cve_2025_52881_links_do_not_leave_the_detached_procfs() {
        let proc = Procfs::detached().unwrap();
        assert!(proc.start_time(std::process::id() as i32).unwrap() > 0);
        assert_eq!(proc.open("self/exe", OFlags::RDONLY).unwrap_err(), Errno::LOOP);
        assert_eq!(proc.open("../etc/passwd", OFlags::RDONLY).unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn another_file_system_is_not_taken_for_procfs() {
        let fd = crate::root::host_handle("/").unwrap();
        assert_eq!(Procfs::verified(fd).unwrap_err(), Errno::INVAL);
    }
}
