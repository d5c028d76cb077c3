//! What the kernel tells without being asked: changes of links, addresses, routes, neighbours and nf_tables.
//!
//! A notification is a reason to look again, not a source of truth: when a reader is too slow the kernel drops some
//! and says so ([`Event::Lost`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use crate::NetlinkError;
use crate::message::HEADER_LEN;

/// A datagram holds one event; the longest is a link with all its statistics.
const RECEIVE_BYTES: usize = 32 * 1024;
/// Bursts (a thousand routes) should not overrun the queue. Counts as the kernel's memory, and only when used.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Events of one [`Notifications::read`], so that a flood cannot keep the caller from acting.
const READ_LIMIT: usize = 4096;
const NFNLGRP_NFTABLES: u32 = 7;

/// RTNLGRP_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteGroup {
    Links = 1,
    /// Neighbours of both families and forwarding entries.
    Neighbours = 3,
    Ipv4Addresses = 5,
    Ipv4Routes = 7,
    Ipv6Addresses = 9,
    Ipv6Routes = 11,
    /// Numbers given to other network namespaces.
    NamespaceIds = 28,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Changed {
        /// RTM_*, or 10 << 8 | NFT_MSG_*.
        kind: u16,
        /// Who caused it: the [`crate::Socket::port`] of the request, 0 for the kernel itself.
        sender: u32,
        body: Vec<u8>,
    },
    /// The queue was full: anything may have changed.
    Lost,
}

/// A socket that hears of changes in the network namespace that was the thread's own when it was opened. It never
/// blocks; wait for its file descriptor to become readable.
#[derive(Debug)]
pub struct Notifications {
    raw: RawSocket,
    buffer: Vec<u8>,
}

impl Notifications {
    pub fn route(groups: &[RouteGroup]) -> Result<Self, NetlinkError> {
        Self::open(NETLINK_ROUTE, &groups.iter().map(|group| *group as u32).collect::<Vec<_>>())
    }

    pub fn nf_tables() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])
    }

    fn open(protocol: isize, groups: &[u32]) -> Result<Self, NetlinkError> {
        let open = || {
            let mut raw = RawSocket::new(protocol)?;
            raw.bind(&SocketAddr::new(0, 0))?;
            raw.set_non_blocking(true)?;
            // Needs CAP_NET_ADMIN in the first user namespace; without it the default queue has to do.
            if setsockopt(&raw, sockopt::RcvBufForce, &QUEUE_BYTES).is_err() {
                let _ = setsockopt(&raw, sockopt::RcvBuf, &QUEUE_BYTES);
            }
            groups.iter().try_for_each(|group| raw.add_membership(*group))?;
            Ok(raw)
        };
        let raw = open().map_err(|source| failed("open a netlink socket for notifications", source))?;
        Ok(Self { raw, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Hear also of the namespaces that have a number in this one (RTM_NEWNSID; `ip netns list-id`).
    pub fn listen_everywhere(&self) -> Result<(), NetlinkError> {
        self.raw
            .set_listen_all_namespaces(true)
            .map_err(|source| failed("listen to all network namespaces", source))
    }

    /// What has arrived (at most some thousand events: read again until it is empty); empty when nothing has.
    pub fn read(&mut self) -> Result<Vec<Event>, NetlinkError> {
        let mut events = Vec::new();
        while events.len() < READ_LIMIT {
            match self.raw.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) => match self.buffer.get(..length) {
                    Some(datagram) => split(datagram, &mut events),
                    None => events.push(Event::Lost),
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Lost),
                Err(e) => return Err(failed("read notifications", e)),
            }
        }
        Ok(events)
    }
}

/// Cuts a datagram into events; what does not hold together ends it as [`Event::Lost`].
fn split(mut datagram: &[u8], events: &mut Vec<Event>) {
    while let Some(header) = datagram.first_chunk::<HEADER_LEN>() {
        let number =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = number(0) as usize;
        let Some(body) = datagram.get(HEADER_LEN..length) else {
            events.push(Event::Lost);
            return;
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        events.push(Event::Changed { kind, sender: number(12), body: body.to_vec() });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn failed(what: &str, source: io::Error) -> NetlinkError {
    NetlinkError::Io { what: what.to_owned(), source }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl AsRawFd for Notifications {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_events_and_a_lie_is_a_loss() {
        let mut bytes = Vec::new();
        for body in [&[1_u8, 2, 3][..], &[4]] {
            bytes.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
            bytes.extend(16_u16.to_ne_bytes());
            bytes.extend([0; 6]);
            bytes.extend(9_u32.to_ne_bytes());
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let mut events = Vec::new();
        split(&bytes, &mut events);
        let event = |body: &[u8]| Event::Changed { kind: 16, sender: 9, body: body.to_vec() };
        assert_eq!(events, [event(&[1, 2, 3]), event(&[4])]);
        for length in [0_u32, 15, 400] {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut events = Vec::new();
            split(&bytes, &mut events);
            assert_eq!(events, [Event::Lost], "{length}");
        }
    }
}
