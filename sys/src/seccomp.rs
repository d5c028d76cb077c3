//! Loading a seccomp filter, by seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::Result;
use crate::fd::check;

/// One instruction of classic BPF: `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

pub const TSYNC: u32 = 1;
pub const LOG: u32 = 1 << 1;
pub const SPEC_ALLOW: u32 = 1 << 2;
pub const NEW_LISTENER: u32 = 1 << 3;
pub const TSYNC_ESRCH: u32 = 1 << 4;
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The longest program the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Filters the calling thread from now on. Allocates nothing. With [`NEW_LISTENER`] the answer is the descriptor that
/// notifications come from, close-on-exec.
///
/// # Errors
/// EACCES: neither no_new_privs nor CAP_SYS_ADMIN. EINVAL: a program or a flag this kernel does not take. ESRCH: with
/// [`TSYNC`], another thread could not follow.
pub fn load(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        filter: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| crate::Errno::INVAL)?;
    let argument = Program { length, filter: program.as_ptr() };
    // SAFETY: there is no wrapper for seccomp(2) in libc, nix or rustix. `argument` is `struct sock_fprog` and points
    // to `length` initialised `struct sock_filter`, borrowed for the whole call; the kernel copies them.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&argument))
    };
    let number = check(answer)?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a successful call returns a descriptor that was opened for us just now.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number as i32) }))
}
