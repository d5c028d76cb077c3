//! Sockets of other programs: find connected UDP sockets and end them (sock_diag(7), SOCK_DESTROY of Linux 4.9).
//!
//! For a program whose peer was replaced under it and that will never notice: its next call returns ECONNABORTED.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use crate::message::address_from;
use crate::{Message, NetlinkError, Socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// A UDP socket after connect(2) has this state of TCP's.
const ESTABLISHED: u32 = 1 << 1;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID_LEN: usize = 48;
/// Where the id begins in `struct inet_diag_msg` and in the bodies below.
const MESSAGE_ID: usize = 4;

/// A connected UDP socket of the network namespace that the netlink socket is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedUdp {
    /// As SO_COOKIE shows it: unique on this machine for as long as it runs.
    pub cookie: u64,
    /// IPv4 also for an AF_INET6 socket that talks IPv4.
    pub remote: SocketAddr,
    family: u8,
    id: [u8; ID_LEN],
}

/// All connected UDP sockets of both families. `socket`: of [`crate::Protocol::SockDiag`].
///
/// # Errors
/// ENOENT: the kernel has no udp_diag (CONFIG_INET_UDP_DIAG).
pub fn connected_udp(socket: &mut Socket) -> Result<Vec<ConnectedUdp>, NetlinkError> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let body = request(family as u8, ESTABLISHED, &[0; ID_LEN]);
        let list = Message::new("list connected UDP sockets", SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &body);
        found.extend(socket.dump(&list)?.iter().filter_map(|reply| parse(&reply.body)));
    }
    Ok(found)
}

/// Ends the socket for its owner with ECONNABORTED. False: it was gone already.
///
/// # Errors
/// EOPNOTSUPP: the kernel has no CONFIG_INET_DIAG_DESTROY. EPERM: no CAP_NET_ADMIN over the socket's namespace.
pub fn destroy(socket: &mut Socket, udp: &ConnectedUdp) -> Result<bool, NetlinkError> {
    let body = request(udp.family, u32::MAX, &udp.id);
    let what = format!("destroy the UDP socket connected to {}", udp.remote);
    match socket.transact(vec![Message::new(what, SOCK_DESTROY, 0, &body)]) {
        Ok(()) => Ok(true),
        Err(e) if e.is(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    let mut body = vec![family, libc::IPPROTO_UDP as u8, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

fn parse(message: &[u8]) -> Option<ConnectedUdp> {
    let family = *message.first()?;
    let id: [u8; ID_LEN] = message.get(MESSAGE_ID..MESSAGE_ID + ID_LEN)?.try_into().ok()?;
    let address_len = if i32::from(family) == libc::AF_INET { 4 } else { 16 };
    let address = address_from(&id[20..20 + address_len])?;
    let ip = match address {
        IpAddr::V6(v6) => v6.to_canonical(),
        IpAddr::V4(_) => address,
    };
    let remote = SocketAddr::new(ip, u16::from_be_bytes([id[2], id[3]]));
    let [low, high] = [40, 44].map(|at| u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]));
    Some(ConnectedUdp { cookie: u64::from(high) << 32 | u64::from(low), remote, family, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: i32, remote: &[u8]) -> Vec<u8> {
        let mut bytes = vec![family as u8, 1, 0, 0, 0x12, 0x34, 0, 53];
        bytes.extend([9; 16]);
        let mut padded = remote.to_vec();
        padded.resize(16, 0);
        bytes.extend(padded);
        bytes.extend([0; 4]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([0; 20]);
        bytes
    }

    #[test]
    fn a_socket_is_read_in_either_family() {
        let mapped = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().expect("an address").octets();
        for (bytes, remote) in [
            (message(libc::AF_INET, &[10, 0, 0, 1]), "10.0.0.1:53"),
            (message(libc::AF_INET6, &mapped), "10.0.0.1:53"),
            (message(libc::AF_INET6, &[0x20, 1, 0xd, 0xb8]), "[2001:db8::]:53"),
        ] {
            let socket = parse(&bytes).expect("a socket");
            assert_eq!(socket.remote, remote.parse().expect("an address"));
            assert_eq!(socket.cookie, 1 << 32 | 7);
            assert_eq!(request(socket.family, u32::MAX, &socket.id)[8..], bytes[4..52]);
        }
    }

    #[test]
    fn a_short_message_is_no_socket() {
        let whole = message(libc::AF_INET, &[10, 0, 0, 1]);
        for len in 0..52 {
            assert!(parse(&whole[..len]).is_none(), "{len}");
        }
    }
}
