//! Namespaces: create, join by descriptor, and pin a network namespace from a daemon with threads.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::thread::{
    ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::fd::check;
use crate::{Errno, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    User,
    Cgroup,
    Ipc,
    Uts,
    Network,
    Pid,
    Mount,
    Time,
}

impl Kind {
    pub const ALL: [Self; 8] =
        [Self::User, Self::Cgroup, Self::Ipc, Self::Uts, Self::Network, Self::Pid, Self::Mount, Self::Time];

    /// The `CLONE_NEW*` bit.
    pub fn flag(self) -> u32 {
        (match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Network => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Time => 0x80,
        }) as u32
    }

    /// The name in /proc/PID/ns.
    pub fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::Time => "time",
        }
    }
}

/// Opens a namespace file and verifies that it is one, of this kind (not a file put in its place).
///
/// # Errors
/// EINVAL: no nsfs file, or a namespace of another kind.
pub fn open(path: impl AsRef<Path>, kind: Kind) -> Result<OwnedFd> {
    let fd = openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    verify(&fd, kind)?;
    Ok(fd)
}

/// EINVAL unless `fd` is a namespace of this kind.
pub fn verify(fd: impl AsFd, kind: Kind) -> Result<()> {
    if fstatfs(&fd)?.f_type as u64 != libc::NSFS_MAGIC as u64 {
        return Err(Errno::INVAL);
    }
    // SAFETY: NS_GET_NSTYPE (Linux 4.11) takes no argument and returns an integer; the descriptor is borrowed.
    let found = check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE as _) }.into())?;
    if found as u32 == kind.flag() { Ok(()) } else { Err(Errno::INVAL) }
}

/// Moves this thread into a namespace (for pid: its future children).
pub fn join(fd: impl AsFd, kind: Kind) -> Result<()> {
    use rustix::thread::LinkNameSpaceType as Link;
    let link = match kind {
        Kind::User => Link::User,
        Kind::Cgroup => Link::ControlGroup,
        Kind::Ipc => Link::InterProcessCommunication,
        Kind::Uts => Link::HostNameAndNISDomainName,
        Kind::Network => Link::Network,
        Kind::Pid => Link::ProcessID,
        Kind::Mount => Link::Mount,
        Kind::Time => Link::Time,
    };
    move_into_link_name_space(fd.as_fd(), Some(link))
}

/// Moves this thread into several namespaces of a process at once (Linux 5.8).
pub fn join_process(pidfd: impl AsFd, flags: u32) -> Result<()> {
    move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::from_bits_retain(flags))
}

/// Leaves the namespaces named by `flags` for new ones.
pub fn unshare(flags: u32) -> Result<()> {
    // SAFETY: only CLONE_NEW* bits pass, and none of them takes away memory, descriptors or the file system context
    // from another thread (CLONE_FILES could: I/O safety).
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(flags & new_namespaces())) }
}

fn new_namespaces() -> u32 {
    Kind::ALL.iter().fold(0, |flags, kind| flags | kind.flag())
}

/// A new network namespace, made by a short-lived thread so that a daemon with threads stays where it is.
pub fn new_network() -> Result<OwnedFd> {
    in_new_network(Ok)
}

/// Makes a new network namespace and binds it at `path`, an empty file that is created.
/// Unpin by [`unpin`].
pub fn pin_new_network(path: &Path) -> Result<()> {
    let file = openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::from(0o444),
    )?;
    drop(file);
    in_new_network(|_own| rustix::mount::mount_bind("/proc/thread-self/ns/net", path))
        .inspect_err(|_| rustix::fs::unlink(path).unwrap_or_default())
}

/// Undoes [`pin_new_network`]; what is already gone is no error.
pub fn unpin(path: &Path) -> Result<()> {
    for step in [crate::mount::unmount(path, true), rustix::fs::unlink(path)] {
        match step {
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Runs `work` on a thread of its own that is in a new network namespace.
fn in_new_network<T: Send>(work: impl FnOnce(OwnedFd) -> Result<T> + Send) -> Result<T> {
    on_own_thread(|| {
        unshare(Kind::Network.flag())?;
        work(open("/proc/thread-self/ns/net", Kind::Network)?)
    })
}

/// Runs `work` on a thread that has joined the network namespace `fd`; sockets opened there stay in it.
pub fn in_network<T: Send>(fd: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> Result<T> {
    let fd = fd.as_fd();
    on_own_thread(move || join(fd, Kind::Network).map(|()| work()))
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(path: impl AsRef<Path>) -> u64 {
        rustix::fs::stat(path.as_ref()).unwrap().st_ino
    }

    #[test]
    fn a_pinned_network_namespace_is_new_and_the_caller_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netns");
        let before = inode("/proc/thread-self/ns/net");
        pin_new_network(&path).unwrap();
        assert_ne!(inode(&path), before);
        assert_eq!(inode("/proc/thread-self/ns/net"), before);
        open(&path, Kind::Network).unwrap();
        assert_eq!(open(&path, Kind::Uts).unwrap_err(), Errno::INVAL);
        let inside =
            in_network(open(&path, Kind::Network).unwrap(), || inode("/proc/thread-self/ns/net")).unwrap();
        assert_eq!(inside, inode(&path));
        unpin(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_ordinary_file_is_no_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(open(file.path(), Kind::Network).unwrap_err(), Errno::INVAL);
    }
}
