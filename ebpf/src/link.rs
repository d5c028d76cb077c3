//! Links of programs to interfaces (tcx) and to cgroups, by bpf(2): made, pinned, found again, given another program in
//! place.
//!
//! aya makes such links too, but finds interfaces by name only (which another may have by the time it looks), cannot
//! replace the program of a link to a cgroup, and does not tell what a link is attached to.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, renameat};
use nix::sys::statfs::{FsType, statfs};

/// nix has a 32-bit constant of it only for some libcs.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

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

/// The begin of `struct bpf_link_info`. `target`: of a link to a cgroup the cgroup's number, of tcx the interface's
/// number and the kind of attachment.
#[repr(C, align(8))]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    target: [u32; 2],
    rest: [u32; 2],
}

/// A program attached to the ingress of an interface or to a cgroup. Lives as long as this or its pin.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

/// What a link to a cgroup joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupInfo {
    pub program_id: u32,
    /// The inode number of the cgroup's directory; 0: the cgroup was removed, and the link does nothing any more.
    pub cgroup_id: u64,
}

/// Whether the kernel has tcx (Linux 6.6).
pub fn has_tcx() -> Result<bool, Errno> {
    let mut query = Query { target: LO, attach_type: TCX_INGRESS, ..Query::default() };
    match bpf(PROG_QUERY, &mut query) {
        // ENOENT: nothing is attached there, which a kernel without tcx would not know.
        Ok(_) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl Link {
    /// To the ingress of an interface of this thread's network namespace, behind the programs that are there.
    pub fn tcx(program: impl AsFd, ifindex: u32) -> Result<Self, Errno> {
        Self::create(raw(&program), ifindex, TCX_INGRESS)
    }

    /// Beside programs of others and of parent and child cgroups (a link implies BPF_F_ALLOW_MULTI; Linux 5.7).
    pub fn cgroup(program: impl AsFd, cgroup: impl AsFd, attach_type: u32) -> Result<Self, Errno> {
        Self::create(raw(&program), raw(&cgroup), attach_type)
    }

    fn create(program: u32, target: u32, attach_type: u32) -> Result<Self, Errno> {
        let mut create = Create { program, target, attach_type, ..Create::default() };
        bpf(LINK_CREATE, &mut create).map(|fd| Self { fd: owned(fd) })
    }

    pub fn open(pin: &Path) -> Result<Self, Errno> {
        let path = c_path(pin)?;
        let mut get = Pin { path: path.as_ptr() as u64, ..Pin::default() };
        bpf(OBJ_GET, &mut get).map(|fd| Self { fd: owned(fd) })
    }

    pub fn pin(&self, pin: &Path) -> Result<(), Errno> {
        pin_fd(&self.fd, pin)
    }

    /// Replaces the program at once: every packet and every call is seen by either the old or the new one.
    ///
    /// # Errors
    /// ENOLINK: interface or cgroup is gone.
    pub fn update(&self, program: impl AsFd) -> Result<(), Errno> {
        let mut update = Update { link: raw(&self.fd), new_program: raw(&program), ..Update::default() };
        bpf(LINK_UPDATE, &mut update).map(drop)
    }

    /// Takes the program off now, whoever else holds the link (Linux 5.9). Interface or cgroup gone is no error.
    pub fn detach(&self) -> Result<(), Errno> {
        match bpf(LINK_DETACH, &mut Detach { link: raw(&self.fd) }) {
            Err(Errno::ENOLINK) | Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The interface of a tcx link; `None` if it is gone.
    pub fn ifindex(&self) -> Result<Option<u32>, Errno> {
        let [ifindex, _] = self.info()?.target;
        Ok((ifindex != 0).then_some(ifindex))
    }

    pub fn cgroup_info(&self) -> Result<CgroupInfo, Errno> {
        let Info { program_id, target: [first, second], .. } = self.info()?;
        let (first, second) = (u64::from(first), u64::from(second));
        let cgroup_id =
            if cfg!(target_endian = "little") { second << 32 | first } else { first << 32 | second };
        Ok(CgroupInfo { program_id, cgroup_id })
    }

    fn info(&self) -> Result<Info, Errno> {
        let mut info = Info::default();
        let mut get =
            GetInfo { fd: raw(&self.fd), len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
        bpf(OBJ_GET_INFO_BY_FD, &mut get)?;
        Ok(info)
    }
}

/// Pins anything of BPF at `pin`, in place of what is there: at no moment is neither pinned.
pub fn pin_fd(fd: impl AsFd, pin: &Path) -> Result<(), Errno> {
    let mut beside = pin.as_os_str().to_owned();
    beside.push("-new");
    let beside = Path::new(&beside);
    let path = c_path(beside)?;
    // Left by a process that died between pinning and renaming.
    unlink(beside)?;
    let mut attribute = Pin { path: path.as_ptr() as u64, fd: raw(&fd), flags: 0 };
    bpf(OBJ_PIN, &mut attribute)?;
    renameat(AT_FDCWD, beside, AT_FDCWD, pin)
}

/// Removes a pin; what is gone is no error.
pub fn unlink(pin: &Path) -> Result<(), Errno> {
    match nix::unistd::unlink(pin) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Whether pins can be here. What is elsewhere is nobody's pin.
pub fn is_bpffs(path: &Path) -> bool {
    let kind = statfs(path).map(|stat| stat.filesystem_type());
    kind.map(|FsType(kind)| kind & 0xffff_ffff) == Ok(BPF_FS_MAGIC)
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: no crate we use wraps these commands so. `attribute` is a live, exclusively borrowed repr(C) struct that
    // begins as `union bpf_attr` does for `command`, without padding, and its size is passed with it; the kernel takes the
    // rest as zero. Addresses in it are of buffers that the callers above keep until the call is over.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    Errno::result(answer)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor of a successful call; nobody else owns it. BPF descriptors
    // are close-on-exec by themselves.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
