//! Session keyrings: one a container, so that keys of the host's session are not seen inside.

use std::ffi::CStr;

use crate::fd::check;
use crate::{Errno, Result};

/// KEY_USR_SEARCH: the owner may find keys in it (keyctl(2)); what runc grants, so that `exec` can join it.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins (or makes) the session keyring of this name and lets its owner search it.
pub fn join_session(name: &CStr) -> Result<()> {
    let keyring = keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr() as usize, 0, 0)?;
    let permissions = permissions(keyring)?;
    keyctl(libc::KEYCTL_SETPERM, keyring as usize, (permissions | USER_SEARCH) as usize, 0).map(drop)
}

/// The permission word of a key: field four of `type;uid;gid;perm;description`.
fn permissions(key: i64) -> Result<u32> {
    let mut text = [0_u8; 512];
    let length = keyctl(libc::KEYCTL_DESCRIBE, key as usize, text.as_mut_ptr() as usize, text.len())?;
    let text = text.get(..length as usize).ok_or(Errno::OVERFLOW)?;
    let text = std::str::from_utf8(text).map_err(|_| Errno::INVAL)?;
    text.split(';').nth(3).and_then(|field| u32::from_str_radix(field, 16).ok()).ok_or(Errno::INVAL)
}

fn keyctl(operation: u32, first: usize, second: usize, third: usize) -> Result<i64> {
    // SAFETY: no safe crate we pin has keyctl(2). The callers above pass a C string or a buffer with its true length,
    // both alive for the call; the other arguments are integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, third, 0_usize) })
}
