//! File descriptors: closing ranges, CLOEXEC, and descriptors inherited from whoever started us.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::{Errno, Result};

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: RawFd) -> Result<()> {
    close_range(first as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

pub(crate) fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: close_range(2) (Linux 5.9; CLOEXEC 5.11) takes three integers and touches no memory of ours. musl and
    // rustix have no wrapper. What closing means for owned descriptors is the contract of the callers in this crate.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    check(answer).map(drop)
}

/// Lets a descriptor survive execve, or not.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    let flags = fcntl_getfd(&fd)?;
    fcntl_setfd(&fd, if on { flags | FdFlags::CLOEXEC } else { flags - FdFlags::CLOEXEC })
}

/// Takes over a descriptor number that was inherited across execve (LISTEN_FDS, --preserve-fds, a passed socket) and
/// marks it close-on-exec.
///
/// # Errors
/// EBADF when nothing is open at that number.
///
/// # Safety
/// Nothing else in this process may own `number`: call once a number, before any descriptor is opened.
pub unsafe fn inherited(number: RawFd) -> Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: F_GETFD on an arbitrary number is harmless; it only tells whether the number is open.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: the number is open (checked above) and, by this function's contract, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(&fd, true)?;
    Ok(fd)
}

/// Whether a descriptor number is open in this process.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD on an arbitrary number reads one flag and changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Lets the descriptors `numbers` survive execve (`--preserve-fds`); they were inherited and belong to no [`OwnedFd`].
pub fn keep_over_exec(mut numbers: impl Iterator<Item = RawFd>) -> Result<()> {
    numbers.try_for_each(|number| {
        // SAFETY: F_SETFD changes one flag of a number; a number that is not open answers EBADF.
        check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop)
    })
}

/// The result of a raw system call through libc: -1 means errno.
pub(crate) fn check(answer: libc::c_long) -> Result<libc::c_long> {
    if answer == -1 {
        let raw = std::io::Error::last_os_error().raw_os_error().expect("a failed system call sets errno");
        return Err(Errno::from_raw_os_error(raw));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloexec_can_be_cleared_and_set() {
        let (read, _write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        set_cloexec(&read, false).unwrap();
        assert!(!fcntl_getfd(&read).unwrap().contains(FdFlags::CLOEXEC));
        set_cloexec(&read, true).unwrap();
        assert!(fcntl_getfd(&read).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn closed_numbers_are_not_inherited() {
        assert!(!is_open(9999));
        // SAFETY: nothing owns 9999 in this test process.
        assert_eq!(unsafe { inherited(9999) }.unwrap_err(), Errno::BADF);
    }
}
