//! /proc/sys/net of the calling thread's network namespace.

use std::fs;

use corten_sys::Context;

use crate::Result;

/// Writes unless the value is there already: writing some of these takes the kernel's network lock.
///
/// `key`: with slashes, so that interface names may hold dots (`net/ipv4/ip_forward`).
pub fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    Ok(fs::write(&path, value).tried(|| format!("write {value} to {path}"))?)
}

/// As the kernel prints it, without the line's end.
pub fn get(key: &str) -> Result<String> {
    let path = format!("/proc/sys/{key}");
    let text = fs::read_to_string(&path).tried(|| format!("read {path}"))?;
    Ok(text.trim_end().to_owned())
}

/// For settings that are good to have: the kernel may lack IPv6, /proc/sys may be read-only.
pub fn try_set(key: &str, value: &str) {
    let _ = set(key, value);
}
