//! A program that enters containers runs from a sealed copy of its executable.
//!
//! Whatever enters a container can be found there as /proc/PID/exe, and a container whose root is the host's could
//! write through that link to the file on the host once nobody runs it (CVE-2019-5736). A plain read-only bind can be
//! made writable again with CAP_SYS_ADMIN, so the copy is a file of an overlay without an upper layer, which shares
//! the page cache and has nothing to write to; else a memfd with all its seals.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create, openat,
};
use rustix::mount::MountAttrFlags;

use crate::fd::check;
use crate::mount::Overlay;
use crate::{Errno, Result};

/// Tells the copy that it is one, by its pid, which execve keeps: a program that inherits it is not meant. It is only
/// believed together with what the kernel says of the file.
const MARK: &str = "_CORTEN_SEALED";

/// Returns in a process whose executable cannot be written: at once when it is one, else by executing a sealed copy
/// with the same arguments and environment. To be called first in `main`, in a process with one thread.
///
/// # Errors
/// Neither an overlay nor a memfd could be made, or the mark is set in a process that is not sealed.
pub fn ensure() -> Result<()> {
    let executable = openat(CWD, "/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if std::env::var_os(MARK).is_some_and(|mark| *mark == *own_mark()) {
        name_thread();
        return if is_sealed(&executable) { Ok(()) } else { Err(Errno::PERM) };
    }
    let copy = overlay_copy().or_else(|_| memfd_copy(&executable))?;
    drop(executable);
    execute(&copy)
}

fn own_mark() -> String {
    std::process::id().to_string()
}

/// Before Linux 6.14 a program that is executed by descriptor is named by its number.
fn name_thread() {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(c_string);
    if let Some(Ok(name)) = name {
        // A name for `ps`, nothing more.
        let _ = rustix::thread::set_name(&name);
    }
}

fn is_sealed(executable: &OwnedFd) -> bool {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    let memfd =
        fcntl_get_seals(executable).is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SEAL));
    memfd || rustix::fs::fstatfs(executable).is_ok_and(|fs| fs.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

/// The executable seen through a read-only overlay of its directory, which is mounted nowhere.
fn overlay_copy() -> Result<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe").map_err(|_| Errno::NOENT)?;
    let (directory, name) = (path.parent().ok_or(Errno::NOENT)?, path.file_name().ok_or(Errno::NOENT)?);
    // Without an upper layer the kernel wants two lower ones, which do not overlap.
    let other = if directory.starts_with("/dev") { Path::new("/sys") } else { Path::new("/dev") };
    let overlay = Overlay {
        lower: vec![directory.to_owned(), other.to_owned()],
        read_only: true,
        source: "corten-sealed".into(),
        ..Overlay::default()
    };
    let mount = overlay.mount()?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    crate::mount::set_attributes(&mount, crate::mount::Attributes::set(flags), false)?;
    let copy = crate::root::beneath(&mount, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    // The path was read as a string: what it names now must be what we run (an upgrade may have replaced it).
    let (seen, own) = (rustix::fs::fstat(&copy)?, rustix::fs::stat("/proc/self/exe")?);
    if (seen.st_ino, seen.st_size) == (own.st_ino, own.st_size) { Ok(copy) } else { Err(Errno::STALE) }
}

fn memfd_copy(executable: &OwnedFd) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let path = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let name = path.file_name().unwrap_or(OsStr::new("corten-sealed"));
    // MFD_EXEC (Linux 6.3) says that it is meant to be executed; older kernels do not know it.
    let copy = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags))?;
    let (mut from, mut to) =
        (std::fs::File::from(executable.try_clone().map_err(errno)?), std::fs::File::from(copy));
    io::copy(&mut from, &mut to).map_err(errno)?;
    let copy = OwnedFd::from(to);
    fcntl_add_seals(&copy, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(copy)
}

fn execute(program: &OwnedFd) -> Result<()> {
    let arguments: Vec<CString> = std::env::args_os().map(|text| c_string(&text)).collect::<Result<_>>()?;
    let mut environment: Vec<CString> = std::env::vars_os()
        .filter(|(name, _)| name != MARK)
        .map(|(name, value)| {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend(value.into_vec());
            CString::new(pair).map_err(|_| Errno::INVAL)
        })
        .collect::<Result<_>>()?;
    environment.push(c_string(OsStr::new(&format!("{MARK}={}", own_mark())))?);
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: musl's fexecve goes through /proc, execveat(2) does not. Both arrays end with a null pointer and point
    // to C strings that live until the call returns, which it only does on failure.
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Errno::INVAL)
}

fn errno(error: io::Error) -> Errno {
    crate::errno::Code::from(error).0
}
