//! Sockets that stay connected to a backend which is gone.
//!
//! A connected UDP socket names its peer once; when that pod goes, nothing tells the program, and what it sends is lost
//! for ever. (Connection tracking of a packet translator forgets and chooses again; TCP is told by the peer's kernel.)
//! So such sockets are ended, and the program connects anew.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use corten_ebpf_layout::service::{Original, Reverse};
use corten_netlink::{Protocol, Socket, sock_diag};
use corten_sys::ns::{self, Kind};
use nix::errno::Errno;

use super::error::SocketError;

/// `SO_NETNS_COOKIE` (Linux 5.14); libc does not have it.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Ends those of the sockets that are in this namespace. Returns how many.
pub fn destroy_in(namespace: impl AsFd + Sync, stale: &[(Reverse, Original)]) -> Result<usize, SocketError> {
    ns::in_network(namespace, || destroy_here(stale))
        .map_err(|errno| SocketError::Namespace { errno: Errno::from_raw(errno.raw_os_error()) })?
}

fn destroy_here(stale: &[(Reverse, Original)]) -> Result<usize, SocketError> {
    let here = netns_cookie()?;
    let wanted: BTreeSet<Reverse> = stale
        .iter()
        .filter(|(_, original)| here.is_none_or(|here| here == original.netns))
        .map(|(reverse, _)| *reverse)
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let mut socket = Socket::open(Protocol::SockDiag)?;
    let mut destroyed = 0;
    for udp in sock_diag::connected_udp(&mut socket)? {
        // Also by the peer: the program may have connected it elsewhere meanwhile.
        let key = Reverse { cookie: udp.cookie, backend: udp.remote.into() };
        if wanted.contains(&key) && sock_diag::destroy(&mut socket, &udp)? {
            destroyed += 1;
        }
    }
    Ok(destroyed)
}

/// The cookie of the calling thread's network namespace; `None`: the kernel is older than 5.14 and does not tell.
pub fn netns_cookie() -> Result<Option<u64>, SocketError> {
    let cookie = || {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
        let mut cookie = 0_u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: no crate we use has this option. The kernel writes at most `len` bytes to a u64 that is live and
        // exclusively ours, and the length to `len`.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        Errno::result(answer).map(|_| cookie)
    };
    match cookie() {
        Ok(cookie) => Ok(Some(cookie)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(errno) => Err(SocketError::Cookie { errno }),
    }
}

/// Every network namespace that a process is in or that is bound below /run/netns, each once.
///
/// Sees the processes of this PID namespace: a node's daemon has to be in the initial one.
pub fn networks() -> io::Result<Vec<OwnedFd>> {
    let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some(entry.path().join("ns/net"))
    });
    let bound = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let mut seen = BTreeSet::new();
    let mut networks = Vec::new();
    for path in processes.chain(bound).chain([own]) {
        // A process may end between the two steps, and a file of /run/netns may have lost its mount.
        let Ok(stat) = nix::sys::stat::stat(&path) else { continue };
        if !seen.contains(&stat.st_ino)
            && let Ok(network) = ns::open(&path, Kind::Network)
        {
            seen.insert(stat.st_ino);
            networks.push(network);
        }
    }
    Ok(networks)
}
