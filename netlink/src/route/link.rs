//! Links: what RTM_NEWLINK says of one, and the requests that make, change and delete one.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use super::vxlan::Vxlan;
use crate::message::{Attributes, Message};

pub(super) const INFO_LEN: usize = 16;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;
/// IPv6 addresses of a link are those entered, none is generated.
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET_CONF: u16 = 1;
/// Leave the statistics out of a reply: they are most of it.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
pub(super) const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
const IFF_ALLMULTI: u32 = libc::IFF_ALLMULTI as u32;

/// RFC 2863 state "up": the link carries traffic.
pub const OPER_UP: u8 = 6;
/// net.ipv4.conf.*.arp_notify (linux/ip.h).
pub const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
/// net.ipv4.conf.*.route_localnet (linux/ip.h).
pub const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address such as 0a:58:0a:01:02:03")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let byte = |part: &str| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        bytes.and_then(|b| b.try_into().ok()).map(Mac).ok_or_else(|| MacError(text.to_owned()))
    }
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, ...; `None` for loopback and hardware.
    pub kind: Option<String>,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// [`OPER_UP`] and its neighbours.
    pub oper_state: u8,
    pub master: Option<u32>,
    /// A veth's peer: an index in the peer's own namespace.
    pub peer: Option<u32>,
    /// The number, in the namespace that was asked, of the namespace the peer is in; `None`: the same one.
    pub peer_netns: Option<u32>,
    /// Of a vxlan device.
    pub vxlan: Option<Vxlan>,
    /// How many users asked for promiscuous mode.
    pub promiscuity: u32,
    /// Receives all multicast.
    pub all_multicast: bool,
    /// Of the qdisc, in packets.
    pub tx_queue_len: u32,
    /// As a port of a bridge: no frames to other isolated ports.
    pub isolated: bool,
}

impl Link {
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, INFO_LEN)?;
        let flags = u32::from_ne_bytes(body[8..12].try_into().ok()?);
        let kind = attributes.nested(libc::IFLA_LINKINFO).and_then(|i| i.string(IFLA_INFO_KIND));
        let data = || attributes.nested(libc::IFLA_LINKINFO)?.nested(IFLA_INFO_DATA);
        let is_vxlan = kind.as_deref() == Some("vxlan");
        Some(Self {
            index: u32::from_ne_bytes(body[4..8].try_into().ok()?),
            name: attributes.string(libc::IFLA_IFNAME)?,
            kind,
            mac: attributes.get(libc::IFLA_ADDRESS).and_then(|b| b.try_into().ok()).map(Mac),
            mtu: attributes.u32(libc::IFLA_MTU).unwrap_or_default(),
            up: flags & IFF_UP != 0,
            oper_state: attributes.u8(libc::IFLA_OPERSTATE).unwrap_or_default(),
            master: attributes.u32(libc::IFLA_MASTER),
            peer: attributes.u32(libc::IFLA_LINK),
            peer_netns: attributes.u32(IFLA_LINK_NETNSID),
            vxlan: if is_vxlan { data().and_then(|data| Vxlan::decode(&data)) } else { None },
            promiscuity: attributes.u32(libc::IFLA_PROMISCUITY).unwrap_or_default(),
            all_multicast: flags & IFF_ALLMULTI != 0,
            tx_queue_len: attributes.u32(libc::IFLA_TXQLEN).unwrap_or_default(),
            isolated: attributes
                .nested(libc::IFLA_LINKINFO)
                .and_then(|i| i.nested(IFLA_INFO_SLAVE_DATA)?.u8(IFLA_BRPORT_ISOLATED))
                .is_some_and(|isolated| isolated != 0),
        })
    }
}

pub(super) fn info(family: u8, index: u32, flags: u32, change: u32) -> [u8; INFO_LEN] {
    let mut body = [0; INFO_LEN];
    body[0] = family;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

pub fn get_by_name(name: &str) -> Message {
    Message::new(format!("look up link {name}"), libc::RTM_GETLINK, 0, &info(0, 0, 0, 0))
        .u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .string(libc::IFLA_IFNAME, name)
}

pub fn get_by_index(index: u32) -> Message {
    Message::new(format!("look up link {index}"), libc::RTM_GETLINK, 0, &info(0, index, 0, 0))
        .u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

pub fn list() -> Message {
    Message::new("list links", libc::RTM_GETLINK, libc::NLM_F_DUMP, &info(0, 0, 0, 0))
        .u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

/// The links of the namespace that has this number here.
pub fn list_in(netns: u32) -> Message {
    list().u32(IFLA_TARGET_NETNSID, netns)
}

/// A bridge, up. EEXIST when the name is taken. `mtu` 0 leaves the kernel's default.
pub fn create_bridge(name: &str, mtu: u32) -> Message {
    let message = Message::new(
        format!("create bridge {name}"),
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &info(0, 0, IFF_UP, IFF_UP),
    )
    .string(libc::IFLA_IFNAME, name);
    with_mtu(message, mtu).nest(libc::IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "bridge"))
}

fn with_mtu(message: Message, mtu: u32) -> Message {
    if mtu == 0 { message } else { message.u32(libc::IFLA_MTU, mtu) }
}

/// A veth pair; this end stays here, up, and under `master`.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub master: Option<u32>,
    /// Of both ends; 0 leaves the kernel's default.
    pub mtu: u32,
    pub peer: Peer<'a>,
}

/// The other end, born in its namespace and down (created up, it fails with ENOTCONN).
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    pub name: &'a str,
    pub netns: BorrowedFd<'a>,
    /// `None`: the kernel draws one.
    pub mac: Option<Mac>,
}

/// EEXIST when either name is taken in its namespace.
pub fn create_veth(veth: &Veth<'_>) -> Message {
    let peer = &veth.peer;
    let message = Message::new(
        format!("create veth {} with peer {}", veth.name, peer.name),
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &info(0, 0, IFF_UP, IFF_UP),
    )
    .string(libc::IFLA_IFNAME, veth.name);
    let message = match veth.master {
        Some(master) => message.u32(libc::IFLA_MASTER, master),
        None => message,
    };
    let fill_peer = |m: Message| {
        let m = with_mtu(m.string(libc::IFLA_IFNAME, peer.name), veth.mtu)
            .u32(libc::IFLA_NET_NS_FD, peer.netns.as_raw_fd() as u32);
        match peer.mac {
            Some(mac) => m.attribute(libc::IFLA_ADDRESS, &mac.0),
            None => m,
        }
    };
    with_mtu(message, veth.mtu).nest(libc::IFLA_LINKINFO, |m| {
        m.string(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA, |m| m.nest_with_body(VETH_INFO_PEER, &info(0, 0, 0, 0), fill_peer))
    })
}

/// What [`set`] changes; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct LinkChange {
    pub up: Option<bool>,
    pub promiscuous: Option<bool>,
    pub all_multicast: Option<bool>,
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub tx_queue_len: Option<u32>,
    /// 0 takes the link out of its master.
    pub master: Option<u32>,
    /// Settings of net.ipv4.conf.<link>, by their IPV4_DEVCONF number: no /proc/sys needed.
    pub ipv4_conf: Vec<(u16, u32)>,
    /// IPv6 makes no link-local address by itself. In a request before the one that brings the link up: the kernel
    /// takes the flags of a request first (do_setlink()).
    pub no_generated_ipv6: bool,
}

pub fn set(index: u32, change: &LinkChange) -> Message {
    let (mut flags, mut mask) = (0, 0);
    for (wanted, flag) in
        [(change.up, IFF_UP), (change.promiscuous, IFF_PROMISC), (change.all_multicast, IFF_ALLMULTI)]
    {
        if let Some(on) = wanted {
            mask |= flag;
            flags |= if on { flag } else { 0 };
        }
    }
    let what = format!("change link {index}");
    let mut message = Message::new(what, libc::RTM_NEWLINK, 0, &info(0, index, flags, mask));
    if let Some(mac) = change.mac {
        message = message.attribute(libc::IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = change.mtu {
        message = message.u32(libc::IFLA_MTU, mtu);
    }
    if let Some(length) = change.tx_queue_len {
        message = message.u32(libc::IFLA_TXQLEN, length);
    }
    if let Some(master) = change.master {
        message = message.u32(libc::IFLA_MASTER, master);
    }
    if !change.ipv4_conf.is_empty() || change.no_generated_ipv6 {
        message = message.nest(libc::IFLA_AF_SPEC, |m| set_families(m, change));
    }
    message
}

fn set_families(m: Message, change: &LinkChange) -> Message {
    let m = if change.ipv4_conf.is_empty() {
        m
    } else {
        m.nest(libc::AF_INET as u16, |m| {
            m.nest(IFLA_INET_CONF, |m| change.ipv4_conf.iter().fold(m, |m, (key, value)| m.u32(*key, *value)))
        })
    };
    if change.no_generated_ipv6 {
        m.nest(libc::AF_INET6 as u16, |m| m.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]))
    } else {
        m
    }
}

/// Settings of a link as a port of its bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// A frame may leave by the port it came in.
    pub hairpin: bool,
    /// No frames to other isolated ports.
    pub isolated: bool,
}

pub fn set_bridge_port(index: u32, port: BridgePort) -> Message {
    let body = info(libc::AF_BRIDGE as u8, index, 0, 0);
    let what = format!("set hairpin and isolation of bridge port {index}");
    Message::new(what, libc::RTM_SETLINK, 0, &body).nest(libc::IFLA_PROTINFO, |m| {
        m.attribute(IFLA_BRPORT_MODE, &[u8::from(port.hairpin)])
            .attribute(IFLA_BRPORT_ISOLATED, &[u8::from(port.isolated)])
    })
}

/// No frames to other isolated ports; its other settings stay.
pub fn isolate_bridge_port(index: u32) -> Message {
    let body = info(libc::AF_BRIDGE as u8, index, 0, 0);
    Message::new(format!("isolate bridge port {index}"), libc::RTM_SETLINK, 0, &body)
        .nest(libc::IFLA_PROTINFO, |m| m.attribute(IFLA_BRPORT_ISOLATED, &[1]))
}

/// Waits for an RCU grace period: some 17 ms for a veth.
pub fn delete(index: u32) -> Message {
    Message::new(format!("delete link {index}"), libc::RTM_DELLINK, 0, &info(0, index, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_as_they_are_written() {
        let mac: Mac = "0A-58:0a:01:02:03".parse().expect("a mac");
        assert_eq!(mac.to_string(), "0a:58:0a:01:02:03");
        for bad in ["", "0a:58:0a:01:02", "0a:58:0a:01:02:03:04", "0a:58:0a:01:02:0g", "0a:58:0a:01:02:+3"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_veth_names_both_ends_and_the_peers_namespace() {
        let file = std::fs::File::open("/proc/self/ns/net").expect("a namespace");
        let netns = std::os::fd::AsFd::as_fd(&file);
        let peer = Peer { name: "eth0", netns, mac: Some(Mac([2, 0, 0, 0, 0, 1])) };
        let message = create_veth(&Veth { name: "veth1", master: Some(9), mtu: 1400, peer });
        let attributes = message.attributes(INFO_LEN);
        assert_eq!(attributes.string(libc::IFLA_IFNAME).as_deref(), Some("veth1"));
        assert_eq!(attributes.u32(libc::IFLA_MASTER), Some(9));
        assert_eq!(attributes.u32(libc::IFLA_MTU), Some(1400));
        let data =
            attributes.nested(libc::IFLA_LINKINFO).and_then(|i| i.nested(IFLA_INFO_DATA)).expect("data");
        let peer =
            Attributes::after(data.get(VETH_INFO_PEER).expect("peer"), INFO_LEN).expect("its attributes");
        assert_eq!(peer.string(libc::IFLA_IFNAME).as_deref(), Some("eth0"));
        assert_eq!(peer.u32(libc::IFLA_NET_NS_FD), Some(netns.as_raw_fd() as u32));
        assert_eq!(peer.get(libc::IFLA_ADDRESS), Some(&[2, 0, 0, 0, 0, 1][..]));
    }

    #[test]
    fn a_short_or_nameless_link_is_no_link() {
        assert_eq!(Link::decode(&[]), None);
        assert_eq!(Link::decode(&[0; 15]), None);
        assert_eq!(Link::decode(&[0; 16]), None);
    }
}
