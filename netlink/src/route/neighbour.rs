//! Neighbours (address to MAC on a link) and forwarding entries (MAC to address of a tunnel's other end). The kernel
//! has one message for both, told apart by family.

use std::net::IpAddr;

use super::link::Mac;
use crate::message::{Attributes, Message};

const INFO_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;

/// An entry of the ARP or neighbour discovery table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    pub link: u32,
    pub address: IpAddr,
    /// `None`: not resolved.
    pub mac: Option<Mac>,
    /// Entered by somebody, as opposed to learned; never ages.
    pub permanent: bool,
}

/// An entry of a vxlan device's forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Forward {
    pub link: u32,
    pub mac: Mac,
    /// The tunnel's other end.
    pub destination: IpAddr,
    pub permanent: bool,
}

/// Family, link index and state of an ndmsg.
fn head(body: &[u8]) -> Option<(i32, u32, u16)> {
    let body: &[u8; INFO_LEN] = body.first_chunk()?;
    let link = u32::from_ne_bytes([body[4], body[5], body[6], body[7]]);
    Some((i32::from(body[0]), link, u16::from_ne_bytes([body[8], body[9]])))
}

fn mac(attributes: &Attributes<'_>) -> Option<Mac> {
    attributes.get(NDA_LLADDR).and_then(|b| b.try_into().ok()).map(Mac)
}

impl Neighbour {
    /// `None` for other families' entries, the forwarding entries among them.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (family, link, state) = head(body)?;
        if family != libc::AF_INET && family != libc::AF_INET6 {
            return None;
        }
        let attributes = Attributes::after(body, INFO_LEN)?;
        let address = attributes.address(NDA_DST)?;
        Some(Self { link, address, mac: mac(&attributes), permanent: state & NUD_PERMANENT != 0 })
    }
}

impl Forward {
    /// `None` for what has no single destination.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (family, link, state) = head(body)?;
        if family != libc::AF_BRIDGE {
            return None;
        }
        let attributes = Attributes::after(body, INFO_LEN)?;
        let destination = attributes.address(NDA_DST)?;
        Some(Self { link, mac: mac(&attributes)?, destination, permanent: state & NUD_PERMANENT != 0 })
    }
}

fn info(family: i32, link: u32, state: u16, flags: u8) -> [u8; INFO_LEN] {
    let mut body = [0; INFO_LEN];
    body[0] = family as u8;
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body[10] = flags;
    body
}

fn family(address: IpAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

pub fn list(ipv4: bool, link: u32) -> Message {
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    let what = format!("list neighbours of link {link}");
    Message::new(what, libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &info(family, 0, 0, 0)).u32(NDA_IFINDEX, link)
}

/// Adds or replaces the permanent entry of an address.
pub fn put(link: u32, address: IpAddr, mac: Mac) -> Message {
    let what = format!("put neighbour {address} ({mac}) on link {link}");
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    Message::new(what, libc::RTM_NEWNEIGH, flags, &info(family(address), link, NUD_PERMANENT, 0))
        .address(NDA_DST, address)
        .attribute(NDA_LLADDR, &mac.0)
}

/// ENOENT when there is none.
pub fn delete(link: u32, address: IpAddr) -> Message {
    let what = format!("delete neighbour {address} of link {link}");
    Message::new(what, libc::RTM_DELNEIGH, 0, &info(family(address), link, 0, 0)).address(NDA_DST, address)
}

pub fn list_forwards(link: u32) -> Message {
    let what = format!("list forwarding entries of link {link}");
    let body = info(libc::AF_BRIDGE, 0, 0, 0);
    Message::new(what, libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &body).u32(NDA_IFINDEX, link)
}

/// Adds the permanent entry of a unicast MAC, or replaces its destination.
pub fn put_forward(link: u32, mac: Mac, destination: IpAddr) -> Message {
    let what = format!("put forwarding entry {mac} to {destination} on link {link}");
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let body = info(libc::AF_BRIDGE, link, NUD_PERMANENT, NTF_SELF);
    Message::new(what, libc::RTM_NEWNEIGH, flags, &body)
        .address(NDA_DST, destination)
        .attribute(NDA_LLADDR, &mac.0)
}

/// ENOENT when there is none.
pub fn delete_forward(link: u32, mac: Mac, destination: IpAddr) -> Message {
    let what = format!("delete forwarding entry {mac} to {destination} of link {link}");
    Message::new(what, libc::RTM_DELNEIGH, 0, &info(libc::AF_BRIDGE, link, 0, NTF_SELF))
        .address(NDA_DST, destination)
        .attribute(NDA_LLADDR, &mac.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HEADER_LEN;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn neighbours_and_forwards_survive_encoding_and_are_not_taken_for_each_other() {
        for text in ["10.1.0.0", "fd01::"] {
            let address: IpAddr = text.parse().unwrap();
            let bytes = put(7, address, MAC).sealed(1, true);
            let neighbour = Neighbour { link: 7, address, mac: Some(MAC), permanent: true };
            assert_eq!(Neighbour::decode(&bytes[HEADER_LEN..]), Some(neighbour));
            assert_eq!(Forward::decode(&bytes[HEADER_LEN..]), None);
            let bytes = put_forward(7, MAC, address).sealed(1, true);
            let forward = Forward { link: 7, mac: MAC, destination: address, permanent: true };
            assert_eq!(Forward::decode(&bytes[HEADER_LEN..]), Some(forward));
            assert_eq!(Neighbour::decode(&bytes[HEADER_LEN..]), None);
        }
    }

    #[test]
    fn what_is_short_is_skipped() {
        assert_eq!(Neighbour::decode(&[2; 11]), None);
        assert_eq!(Forward::decode(&[7; 11]), None);
        assert_eq!(Neighbour::decode(&info(libc::AF_INET, 1, 0, 0)), None, "no address");
    }
}
