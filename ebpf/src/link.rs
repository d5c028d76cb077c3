//! Pinned links of programs to cgroups, by bpf(2): made, found again, and given another program in place.
//!
//! aya makes such links too, but cannot replace their program, nor tell which cgroup one is attached to.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Update {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct Detach {
    link: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The begin of `struct bpf_link_info`, with the part of links to cgroups.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct RawInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    end: u32,
}

/// A program attached to a cgroup. Lives as long as this or its pin.
#[derive(Debug)]
pub struct CgroupLink {
    fd: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    pub program_id: u32,
    /// The inode number of the cgroup's directory; 0: the cgroup was removed, and the link does nothing any more.
    pub cgroup_id: u64,
}

impl CgroupLink {
    /// Beside programs of others and of parent and child cgroups (a link implies BPF_F_ALLOW_MULTI; Linux 5.7).
    pub fn create(program: impl AsFd, cgroup: impl AsFd, attach_type: u32) -> Result<Self, Errno> {
        let mut attribute =
            Create { program: raw(&program), target: raw(&cgroup), attach_type, ..Create::default() };
        bpf(LINK_CREATE, &mut attribute).map(|fd| Self { fd: owned(fd) })
    }

    pub fn open(pin: &Path) -> Result<Self, Errno> {
        let path = c_path(pin)?;
        let mut attribute = Pin { path: path.as_ptr() as u64, ..Pin::default() };
        bpf(OBJ_GET, &mut attribute).map(|fd| Self { fd: owned(fd) })
    }

    /// Pins at `pin`, in place of what is there: at no moment is neither attached.
    pub fn pin(&self, pin: &Path) -> Result<(), Errno> {
        let mut beside = pin.as_os_str().to_owned();
        beside.push("_new");
        let beside = Path::new(&beside);
        let path = c_path(beside)?;
        unlink(beside)?;
        let mut attribute = Pin { path: path.as_ptr() as u64, fd: raw(&self.fd), flags: 0 };
        bpf(OBJ_PIN, &mut attribute)?;
        nix::fcntl::renameat(nix::fcntl::AT_FDCWD, beside, nix::fcntl::AT_FDCWD, pin)
    }

    /// Replaces the program at once: every call of the hook runs either the old or the new one.
    ///
    /// # Errors
    /// ENOLINK: the cgroup is gone.
    pub fn update(&self, program: impl AsFd) -> Result<(), Errno> {
        let mut attribute = Update { link: raw(&self.fd), new_program: raw(&program), ..Update::default() };
        bpf(LINK_UPDATE, &mut attribute).map(drop)
    }

    /// Takes the program off now (Linux 5.9). Without it that happens some time after the last pin and descriptor are
    /// gone. A cgroup that is gone is no error.
    pub fn detach(&self) -> Result<(), Errno> {
        let mut attribute = Detach { link: raw(&self.fd) };
        bpf(LINK_DETACH, &mut attribute).map(drop)
    }

    pub fn info(&self) -> Result<LinkInfo, Errno> {
        let mut info = RawInfo::default();
        let mut attribute =
            GetInfo { fd: raw(&self.fd), len: size_of::<RawInfo>() as u32, info: (&raw mut info) as u64 };
        bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
        Ok(LinkInfo { program_id: info.program_id, cgroup_id: info.cgroup_id })
    }
}

/// Removes a pin; what is gone is no error.
pub fn unlink(pin: &Path) -> Result<(), Errno> {
    match nix::unistd::unlink(pin) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: no crate we use wraps these commands for cgroup links. `attribute` is a live, exclusively borrowed repr(C)
    // struct that begins as `union bpf_attr` does for `command`, without padding, and its size is passed with it; the
    // kernel takes the rest as zero. Addresses in it are of buffers that the callers above keep until the call is over.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    Errno::result(answer)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor of a successful call; nobody else owns it. BPF descriptors
    // are close-on-exec by themselves.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
