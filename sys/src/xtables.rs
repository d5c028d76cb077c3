//! Tables of legacy iptables (`iptables-legacy`), read by their own getsockopt: netlink does not show them.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::{Errno, Result};

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO (linux/netfilter_ipv4/ip_tables.h).
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME_LEN: usize = 32;
/// struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
const INFO_LEN: usize = NAME_LEN + 4 * 13;
/// struct ipt_get_entries before its entries, which are aligned to eight bytes.
const ENTRIES_HEAD: usize = NAME_LEN + 8;
/// What one table may hold before we stop reading it.
const SIZE_LIMIT_BYTES: u32 = 64 * 1024 * 1024;

/// A table as the kernel keeps it: entries one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Of each hook (NF_INET_*), the offset of its first entry and of its policy; `None`: the table has no such hook.
    pub hooks: [Option<(u32, u32)>; 5],
    /// struct ipt_entry or ip6t_entry, each followed by its matches and its target.
    pub entries: Vec<u8>,
}

/// The table `name` (`filter`, `nat`, ...) of this thread's network namespace. To be asked only for tables that are
/// there (/proc/net/ip_tables_names): asking for others creates them. EFBIG: longer than 64 MiB.
pub fn read(ipv4: bool, name: &str) -> Result<Table> {
    let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::RAW, Some(ipproto::RAW))?;
    let level = if ipv4 { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let mut info = vec![0; INFO_LEN];
    put_name(&mut info, name)?;
    get(&socket, level, GET_INFO, &mut info)?;
    let number = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let valid = number(NAME_LEN);
    let hooks = std::array::from_fn(|hook| {
        let first = number(NAME_LEN + 4 + 4 * hook);
        let policy = number(NAME_LEN + 24 + 4 * hook);
        (valid & 1 << hook != 0).then_some((first, policy))
    });
    let size = number(NAME_LEN + 48);
    if size > SIZE_LIMIT_BYTES {
        return Err(Errno::FBIG);
    }
    let mut buffer = vec![0; ENTRIES_HEAD + size as usize];
    put_name(&mut buffer, name)?;
    buffer[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, GET_ENTRIES, &mut buffer)?;
    buffer.drain(..ENTRIES_HEAD);
    Ok(Table { hooks, entries: buffer })
}

fn put_name(buffer: &mut [u8], name: &str) -> Result<()> {
    if name.len() >= NAME_LEN {
        return Err(Errno::NAMETOOLONG);
    }
    buffer[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn get(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: no crate wraps these options, which read the buffer before they fill it. The buffer is live and
    // exclusively borrowed, its length is passed, and the kernel writes no more than that.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    crate::fd::check(answer.into()).map(drop)
}
