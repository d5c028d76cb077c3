//! Links of programs to interfaces by tcx (Linux 6.6), by bpf(2): made by index, found again, given another program.
//!
//! aya attaches by name only, which another interface may have by the time it looks.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::DatapathError;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

const TCX_INGRESS: u32 = 46;
/// The loopback interface of every network namespace.
const LO: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// All zero from `flags` on: behind the programs that are there.
#[repr(C)]
#[derive(Default)]
struct Create {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
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
#[derive(Default)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The begin of `struct bpf_link_info`, with the part of tcx.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// A program attached to the ingress of an interface. Lives as long as this or its pin.
#[derive(Debug)]
pub struct TcxLink {
    fd: OwnedFd,
}

/// Whether the kernel has tcx.
pub fn is_supported() -> Result<bool, DatapathError> {
    let mut query = Query { target: LO, attach_type: TCX_INGRESS, ..Query::default() };
    match bpf(PROG_QUERY, &mut query) {
        // ENOENT: nothing is attached there, which a kernel without tcx would not know.
        Ok(_) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(DatapathError::Query { errno }),
    }
}

impl TcxLink {
    pub fn create(program: BorrowedFd<'_>, ifindex: u32) -> Result<Self, Errno> {
        let mut create =
            Create { program: raw(&program), target: ifindex, attach_type: TCX_INGRESS, ..Create::default() };
        bpf(LINK_CREATE, &mut create).map(|fd| Self { fd: owned(fd) })
    }

    pub fn open(pin: &Path) -> Result<Self, Errno> {
        let path = c_path(pin)?;
        let mut get = Pin { path: path.as_ptr() as u64, ..Pin::default() };
        bpf(OBJ_GET, &mut get).map(|fd| Self { fd: owned(fd) })
    }

    pub fn pin(&self, pin: &Path) -> Result<(), Errno> {
        pin_fd(self.fd.as_fd(), pin)
    }

    /// Replaces the program at once: every packet is seen by either the old or the new one.
    ///
    /// # Errors
    /// ENOLINK: the interface is gone.
    pub fn update(&self, program: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut update = Update { link: raw(&self.fd), new_program: raw(&program), ..Update::default() };
        bpf(LINK_UPDATE, &mut update).map(drop)
    }

    /// The interface; `None` if it is gone.
    pub fn ifindex(&self) -> Result<Option<u32>, Errno> {
        let mut info = RawInfo::default();
        let mut get =
            GetInfo { fd: raw(&self.fd), len: size_of::<RawInfo>() as u32, info: (&raw mut info) as u64 };
        bpf(OBJ_GET_INFO_BY_FD, &mut get)?;
        Ok((info.ifindex != 0).then_some(info.ifindex))
    }

    /// Whoever else holds the link.
    pub fn detach(&self) -> Result<(), Errno> {
        let mut link = raw(&self.fd);
        match bpf(LINK_DETACH, &mut link) {
            Err(Errno::ENOLINK) | Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Pins anything of BPF at `pin`, in place of what is there.
pub fn pin_fd(fd: BorrowedFd<'_>, pin: &Path) -> Result<(), Errno> {
    let mut beside = pin.as_os_str().to_owned();
    beside.push("-new");
    let path = CString::new(beside.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // Left by a process that died between pinning and renaming.
    drop(fs::remove_file(&beside));
    let mut attribute = Pin { path: path.as_ptr() as u64, fd: raw(&fd), flags: 0 };
    bpf(OBJ_PIN, &mut attribute)?;
    fs::rename(&beside, pin).map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: no crate we use wraps these commands for tcx links by index. `attribute` is a live, exclusively borrowed
    // repr(C) struct that begins as `union bpf_attr` does for `command`, without padding, and its size is passed with
    // it; the kernel takes the rest as zero. Addresses in it are of buffers that the callers above keep until the call
    // is over.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    Errno::result(answer)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor of a successful call; nobody else owns it. BPF descriptors
    // are close-on-exec by themselves.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
