//! execve with an explicit environment, nothing taken from this process's own.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use crate::fd::check;
use crate::{Errno, Result};

/// Replaces this process. Only returns on failure.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> Result<Infallible> {
    nix::unistd::execve(path, arguments, environment).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Whether this process may execute the file (access(2) with X_OK, by its effective ids), and that it is a file.
pub fn executable(path: &CStr) -> Result<()> {
    let status = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ISDIR);
    }
    // SAFETY: faccessat(2) reads the C string only. rustix's accessat lacks AT_EACCESS in its raw form.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) }.into())
        .map(drop)
}
