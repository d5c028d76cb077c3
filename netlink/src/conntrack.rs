//! Connection tracking: which flows are translated; find flows, and forget those that should be judged afresh.
//!
//! The kernel applies NAT rules to the first packet of a flow only; a client that keeps sending from one port would
//! go on reaching nobody, or somebody who is gone, until its entry times out.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Attributes, Message};
use crate::{NetlinkError, Socket};
use nix::errno::Errno;

const GENERIC_LEN: usize = 4;
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// CTA_FILTER_FLAG(CTA_PROTO_NUM).
const FILTER_PROTOCOL: u32 = 1 << 3;
/// IPS_DST_NAT: the destination of the flow's packets is translated.
const STATUS_DESTINATION: u32 = 1 << 5;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A TCP or UDP flow. Without translation the reply is the original turned round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    /// What names the entry to the kernel.
    name: Vec<(u16, Vec<u8>)>,
}

/// Where a flow comes from, before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub address: IpAddr,
    pub port: u16,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub protocol: u8,
}

/// Where the TCP and UDP flows of one family come from whose destination is translated. None without connection
/// tracking in the kernel.
///
/// `socket`: of [`crate::Protocol::Netfilter`].
pub fn translated(socket: &mut Socket, ipv4: bool) -> Result<Vec<Origin>, NetlinkError> {
    // Linux before 5.18 does not filter.
    let request = list(ipv4).be32(CTA_STATUS, STATUS_DESTINATION).be32(CTA_STATUS_MASK, STATUS_DESTINATION);
    match socket.dump(&request) {
        Ok(entries) => Ok(entries.iter().filter_map(|entry| Origin::of_translated(&entry.body)).collect()),
        Err(e) if e.is(Errno::EINVAL) || e.is(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The UDP entries of one family. None without connection tracking in the kernel.
///
/// `socket`: of [`crate::Protocol::Netfilter`].
pub fn udp_flows(socket: &mut Socket, ipv4: bool) -> Result<Vec<Flow>, NetlinkError> {
    flows(socket, ipv4, libc::IPPROTO_UDP)
}

/// As [`udp_flows`], of TCP.
pub fn tcp_flows(socket: &mut Socket, ipv4: bool) -> Result<Vec<Flow>, NetlinkError> {
    flows(socket, ipv4, libc::IPPROTO_TCP)
}

fn flows(socket: &mut Socket, ipv4: bool, protocol: i32) -> Result<Vec<Flow>, NetlinkError> {
    let unknown = |e: &NetlinkError| e.is(Errno::EINVAL) || e.is(Errno::EOPNOTSUPP);
    let entries = match socket.dump(&list_of(ipv4, protocol)) {
        // Linux before 5.8 does not filter.
        Err(e) if unknown(&e) => socket.dump(&list(ipv4)),
        other => other,
    };
    match entries {
        Ok(entries) => Ok(entries.iter().filter_map(|entry| Flow::decode(&entry.body, protocol)).collect()),
        Err(e) if unknown(&e) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

impl Flow {
    /// The reply is the original turned round.
    pub fn is_translated(&self) -> bool {
        let Tuple { source, destination } = self.original;
        self.reply != Tuple { source: destination, destination: source }
    }
}

/// Deletes entries; one that is gone already is no error. Returns how many there were.
pub fn delete(socket: &mut Socket, flows: &[Flow]) -> Result<usize, NetlinkError> {
    let mut deleted = flows.len();
    for (_, refusal) in socket.transact_all(flows.iter().map(Flow::deletion).collect())? {
        if !refusal.is(Errno::ENOENT) {
            return Err(refusal);
        }
        deleted -= 1;
    }
    Ok(deleted)
}

/// Deletes the UDP entries of one family whose original destination port is in `ports`. Returns how many.
///
/// `socket`: of [`crate::Protocol::Netfilter`]. Without connection tracking in the kernel there are none: `Ok(0)`.
pub fn flush_udp(socket: &mut Socket, ipv4: bool, ports: &[u16]) -> Result<usize, NetlinkError> {
    let mut flows = udp_flows(socket, ipv4)?;
    flows.retain(|flow| ports.contains(&flow.original.destination.port()));
    delete(socket, &flows)
}

fn generic(ipv4: bool) -> [u8; GENERIC_LEN] {
    [if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8, 0, 0, 0]
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}

fn list(ipv4: bool) -> Message {
    Message::new("list conntrack entries", kind(IPCTNL_MSG_CT_GET), libc::NLM_F_DUMP, &generic(ipv4))
}

fn list_of(ipv4: bool, protocol: i32) -> Message {
    list(ipv4)
        .nest(CTA_TUPLE_ORIG, |m| m.nest(CTA_TUPLE_PROTO, |m| m.attribute(CTA_PROTO_NUM, &[protocol as u8])))
        .nest(CTA_FILTER, |m| m.u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL).u32(CTA_FILTER_REPLY_FLAGS, 0))
}

impl Tuple {
    /// `None`: of another protocol.
    fn decode(tuple: &Attributes<'_>, wanted: i32) -> Option<Self> {
        let protocol = tuple.nested(CTA_TUPLE_PROTO)?;
        if i32::from(protocol.u8(CTA_PROTO_NUM)?) != wanted {
            return None;
        }
        let ip = tuple.nested(CTA_TUPLE_IP)?;
        // CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST.
        let address = |v4, v6| -> Option<IpAddr> { ip.address(v4).or_else(|| ip.address(v6)) };
        Some(Self {
            source: SocketAddr::new(address(1, 3)?, protocol.be16(CTA_PROTO_SRC_PORT)?),
            destination: SocketAddr::new(address(2, 4)?, protocol.be16(CTA_PROTO_DST_PORT)?),
        })
    }
}

impl Origin {
    /// `None`: of another protocol, or not translated.
    fn of_translated(body: &[u8]) -> Option<Self> {
        let entry = Attributes::after(body, GENERIC_LEN)?;
        let tuple = entry.nested(CTA_TUPLE_ORIG)?;
        let (ip, transport) = (tuple.nested(CTA_TUPLE_IP)?, tuple.nested(CTA_TUPLE_PROTO)?);
        let protocol = transport.u8(CTA_PROTO_NUM)?;
        let translated = entry.be32(CTA_STATUS)? & STATUS_DESTINATION != 0;
        let followed = [libc::IPPROTO_TCP, libc::IPPROTO_UDP].contains(&i32::from(protocol));
        (translated && followed).then_some(())?;
        // CTA_IP_V4_SRC, CTA_IP_V6_SRC.
        let address = ip.address(1).or_else(|| ip.address(3))?;
        Some(Self { address, port: transport.be16(CTA_PROTO_SRC_PORT)?, protocol })
    }
}

impl Flow {
    /// `None`: of another protocol.
    fn decode(body: &[u8], protocol: i32) -> Option<Self> {
        let entry = Attributes::after(body, GENERIC_LEN)?;
        let part = |part| Some((part, entry.get(part)?.to_vec()));
        Some(Self {
            original: Tuple::decode(&entry.nested(CTA_TUPLE_ORIG)?, protocol)?,
            reply: Tuple::decode(&entry.nested(CTA_TUPLE_REPLY)?, protocol)?,
            name: [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID].into_iter().filter_map(part).collect(),
        })
    }

    fn deletion(&self) -> Message {
        let ipv4 = self.original.destination.is_ipv4();
        let message = Message::new("delete conntrack entry", kind(IPCTNL_MSG_CT_DELETE), 0, &generic(ipv4));
        self.name.iter().fold(message, |message, (part, value)| {
            let nested = if *part == CTA_TUPLE_ORIG { libc::NLA_F_NESTED as u16 } else { 0 };
            message.attribute(part | nested, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: i32, from: &str, to: &str) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let tuple = |m: Message, kind, from: SocketAddr, to: SocketAddr| {
            let first = if from.is_ipv4() { 1 } else { 3 };
            m.nest(kind, |m| {
                m.nest(CTA_TUPLE_IP, |m| m.address(first, from.ip()).address(first + 1, to.ip())).nest(
                    CTA_TUPLE_PROTO,
                    |m| {
                        m.attribute(CTA_PROTO_NUM, &[protocol as u8])
                            .attribute(CTA_PROTO_SRC_PORT, &from.port().to_be_bytes())
                            .attribute(CTA_PROTO_DST_PORT, &to.port().to_be_bytes())
                    },
                )
            })
        };
        let message = Message::new("entry", 0, 0, &generic(true));
        let message = tuple(message, CTA_TUPLE_ORIG, from, to);
        let message = tuple(message, CTA_TUPLE_REPLY, to, from).be32(CTA_ID, 77);
        message.sealed(1, false)[crate::message::HEADER_LEN..].to_vec()
    }

    #[test]
    fn udp_flows_of_both_families_are_read_and_named_for_deletion() {
        for (from, to) in [("10.0.0.1:4000", "10.96.0.10:53"), ("[fd00::1]:4000", "[fd00::a]:53")] {
            let flow = Flow::decode(&entry(libc::IPPROTO_UDP, from, to), libc::IPPROTO_UDP).expect("a flow");
            assert_eq!(flow.original.source.to_string(), from);
            assert_eq!(flow.original.destination.to_string(), to);
            assert_eq!(flow.reply.source, flow.original.destination);
            let request = flow.deletion();
            let attributes = request.attributes(GENERIC_LEN);
            assert_eq!(attributes.be32(CTA_ID), Some(77));
            assert_eq!(
                Tuple::decode(&attributes.nested(CTA_TUPLE_ORIG).unwrap(), libc::IPPROTO_UDP),
                Some(flow.original)
            );
        }
    }

    #[test]
    fn only_flows_with_a_translated_destination_are_told() {
        let (tcp, udp, icmp) = (libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP);
        for (protocol, status, told) in
            [(tcp, 1 << 5, true), (tcp, 1 << 4, false), (udp, 0x1ff, true), (icmp, 1 << 5, false)]
        {
            let mut body = entry(protocol, "10.1.0.9:4000", "10.96.0.1:80");
            body.extend(
                Message::new("", 0, 0, &[])
                    .be32(CTA_STATUS, status)
                    .sealed(1, false)
                    .split_off(crate::message::HEADER_LEN),
            );
            let origin =
                Origin { address: IpAddr::from([10, 1, 0, 9]), port: 4000, protocol: protocol as u8 };
            assert_eq!(Origin::of_translated(&body), told.then_some(origin), "{protocol} {status:x}");
        }
        assert_eq!(Origin::of_translated(&[0; 3]), None);
    }

    #[test]
    fn what_is_not_udp_or_short_is_skipped() {
        assert!(
            Flow::decode(&entry(libc::IPPROTO_TCP, "10.0.0.1:1", "10.0.0.2:53"), libc::IPPROTO_UDP).is_none()
        );
        for length in 0..8 {
            assert!(Flow::decode(&vec![0; length], libc::IPPROTO_UDP).is_none());
        }
    }
}
