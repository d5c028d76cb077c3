//! Addresses of links.

use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::message::{Attributes, Message};

const INFO_LEN: usize = 8;
const IFA_TARGET_NETNSID: u16 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub cidr: Cidr,
    /// RT_SCOPE_*: 0 global, 253 link.
    pub scope: u8,
    flags: u32,
}

impl Address {
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, INFO_LEN)?;
        // On a point-to-point link IFA_ADDRESS is the other side.
        let address =
            attributes.address(libc::IFA_LOCAL).or_else(|| attributes.address(libc::IFA_ADDRESS))?;
        Some(Self {
            index: u32::from_ne_bytes(body[4..8].try_into().ok()?),
            cidr: Cidr::new(address, body[1])?,
            scope: body[3],
            flags: attributes.u32(libc::IFA_FLAGS).unwrap_or_else(|| u32::from(body[2])),
        })
    }

    /// Duplicate address detection is not over.
    pub fn tentative(&self) -> bool {
        self.flags & libc::IFA_F_TENTATIVE != 0
    }

    /// Not to be used for new connections: its preferred lifetime is over.
    pub fn deprecated(&self) -> bool {
        self.flags & libc::IFA_F_DEPRECATED != 0
    }

    /// Made up by IPv6 privacy extensions, for a while.
    pub fn temporary(&self) -> bool {
        !self.cidr.is_ipv4() && self.flags & libc::IFA_F_TEMPORARY != 0
    }

    /// IPv4: not the first address of its network on this link.
    pub fn secondary(&self) -> bool {
        self.cidr.is_ipv4() && self.flags & libc::IFA_F_SECONDARY != 0
    }

    /// Somebody else on the link has the address.
    pub fn duplicate(&self) -> bool {
        self.flags & libc::IFA_F_DADFAILED != 0
    }
}

fn info(family: i32, prefix: u8, index: u32) -> [u8; INFO_LEN] {
    let mut body = [family as u8, prefix, 0, 0, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

pub fn list(index: u32) -> Message {
    let what = format!("list addresses of link {index}");
    Message::new(what, libc::RTM_GETADDR, libc::NLM_F_DUMP, &info(libc::AF_UNSPEC, 0, index))
}

/// Of every link.
pub fn list_all() -> Message {
    Message::new("list addresses", libc::RTM_GETADDR, libc::NLM_F_DUMP, &info(libc::AF_UNSPEC, 0, 0))
}

/// Of every link of the namespace that has this number here.
pub fn list_in(netns: u32) -> Message {
    list_all().u32(IFA_TARGET_NETNSID, netns)
}

/// EEXIST when the link has it already. IPv4 gets the network's broadcast address, as iproute2's `brd +`.
pub fn add(index: u32, cidr: Cidr) -> Message {
    let message = change(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, "add", index, cidr);
    if cidr.is_ipv4() && cidr.prefix() < 31 {
        message.address(libc::IFA_BROADCAST, cidr.last())
    } else {
        message
    }
}

/// Usable at once: IPv6 skips duplicate address detection, which takes a second or two.
pub fn add_undetected(index: u32, cidr: Cidr) -> Message {
    add(index, cidr).u32(libc::IFA_FLAGS, libc::IFA_F_NODAD)
}

pub fn delete(index: u32, cidr: Cidr) -> Message {
    change(libc::RTM_DELADDR, 0, "delete", index, cidr)
}

fn change(kind: u16, flags: i32, verb: &str, index: u32, cidr: Cidr) -> Message {
    let body = info(family(cidr.address()), cidr.prefix(), index);
    Message::new(format!("{verb} address {cidr} of link {index}"), kind, flags, &body)
        .address(libc::IFA_LOCAL, cidr.address())
        .address(libc::IFA_ADDRESS, cidr.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_encoding() {
        for (text, broadcast) in
            [("10.1.2.3/24", Some("10.1.2.255")), ("10.1.2.3/32", None), ("fd00::3/64", None)]
        {
            let cidr: Cidr = text.parse().unwrap();
            let message = add(3, cidr);
            let broadcast = broadcast.map(|b| b.parse().unwrap());
            assert_eq!(message.attributes(INFO_LEN).address(libc::IFA_BROADCAST), broadcast);
            let bytes = message.sealed(1, true);
            let decoded = Address::decode(&bytes[crate::message::HEADER_LEN..]).expect("an address");
            assert_eq!((decoded.index, decoded.cidr, decoded.tentative()), (3, cidr, false));
        }
    }
}
