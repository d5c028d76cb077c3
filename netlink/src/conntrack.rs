//! Connection tracking: forget UDP flows that a new port mapping should see afresh.
//!
//! The kernel applies NAT rules to the first packet of a flow only; a client that keeps sending from one port would
//! go on reaching nobody until its entry times out.

use crate::message::{Attributes, Message};
use crate::{NetlinkError, Socket};
use nix::errno::Errno;

const GENERIC_LEN: usize = 4;
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// Deletes the UDP entries of one family whose original destination port is in `ports`. Returns how many.
///
/// `socket`: of [`crate::Protocol::Netfilter`]. Without connection tracking in the kernel there are none: `Ok(0)`.
pub fn flush_udp(socket: &mut Socket, ipv4: bool, ports: &[u16]) -> Result<usize, NetlinkError> {
    let entries = match socket.dump(&list(ipv4)) {
        Ok(entries) => entries,
        Err(e) if e.is(Errno::EINVAL) || e.is(Errno::EOPNOTSUPP) => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut deleted = 0;
    for entry in entries {
        let Some(request) = delete_if_stale(ipv4, &entry.body, ports) else { continue };
        match socket.transact(vec![request]) {
            Ok(()) => deleted += 1,
            Err(e) if e.is(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(deleted)
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

/// The request that deletes this entry, if it is UDP to one of the ports.
fn delete_if_stale(ipv4: bool, body: &[u8], ports: &[u16]) -> Option<Message> {
    let entry = Attributes::after(body, GENERIC_LEN)?;
    let protocol = entry.nested(CTA_TUPLE_ORIG)?.nested(CTA_TUPLE_PROTO)?;
    let stale = i32::from(protocol.u8(CTA_PROTO_NUM)?) == libc::IPPROTO_UDP
        && ports.contains(&protocol.be16(CTA_PROTO_DST_PORT)?);
    if !stale {
        return None;
    }
    let mut message = Message::new("delete conntrack entry", kind(IPCTNL_MSG_CT_DELETE), 0, &generic(ipv4));
    for part in [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID] {
        if let Some(value) = entry.get(part) {
            let nested = if part == CTA_TUPLE_ORIG { libc::NLA_F_NESTED as u16 } else { 0 };
            message = message.attribute(part | nested, value);
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: i32, port: u16) -> Vec<u8> {
        let message = Message::new("entry", 0, 0, &generic(true))
            .nest(CTA_TUPLE_ORIG, |m| {
                m.nest(CTA_TUPLE_PROTO, |m| {
                    m.attribute(CTA_PROTO_NUM, &[protocol as u8])
                        .attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())
                })
            })
            .be32(CTA_ID, 77);
        message.sealed(1, false)[crate::message::HEADER_LEN..].to_vec()
    }

    #[test]
    fn only_udp_to_a_mapped_port_is_stale() {
        for (protocol, port, stale) in
            [(libc::IPPROTO_UDP, 53, true), (libc::IPPROTO_UDP, 54, false), (libc::IPPROTO_TCP, 53, false)]
        {
            let request = delete_if_stale(true, &entry(protocol, port), &[53, 80]);
            assert_eq!(request.is_some(), stale, "{protocol} {port}");
            if let Some(request) = request {
                assert_eq!(request.attributes(GENERIC_LEN).be32(CTA_ID), Some(77));
            }
        }
        assert!(delete_if_stale(true, &[], &[53]).is_none());
    }
}
