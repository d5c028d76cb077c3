//! Ports of a bridge and what is done to their traffic: isolation, VLAN filtering, queueing disciplines.

use super::link::{IFLA_INFO_DATA, INFO_LEN, Link, info};
use crate::message::{Attributes, Message};

const IFLA_QDISC: u16 = 6;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const TCA_KIND: u16 = 1;
/// struct tcmsg.
const TC_INFO_LEN: usize = 20;

/// A link that belongs to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLink {
    pub link: Link,
    /// No frames to other isolated ports.
    pub isolated: bool,
    /// The root queueing discipline: `noqueue` for a veth that nobody configured.
    pub qdisc: Option<String>,
}

impl PortLink {
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, INFO_LEN)?;
        let port = attributes.nested(libc::IFLA_LINKINFO).and_then(|i| i.nested(IFLA_INFO_SLAVE_DATA));
        Some(Self {
            link: Link::decode(body)?,
            isolated: port.and_then(|p| p.u8(IFLA_BRPORT_ISOLATED)).unwrap_or_default() != 0,
            qdisc: attributes.string(IFLA_QDISC),
        })
    }
}

/// Of the bridge with this index.
pub fn list(bridge: u32) -> Message {
    Message::new(
        format!("list ports of bridge {bridge}"),
        libc::RTM_GETLINK,
        libc::NLM_F_DUMP,
        &info(0, 0, 0, 0),
    )
    .u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    .u32(libc::IFLA_MASTER, bridge)
}

/// From RTM_NEWLINK of a bridge.
pub fn vlan_filtering(body: &[u8]) -> bool {
    let data = || Attributes::after(body, INFO_LEN)?.nested(libc::IFLA_LINKINFO)?.nested(IFLA_INFO_DATA);
    data().and_then(|d| d.u8(IFLA_BR_VLAN_FILTERING)).unwrap_or_default() != 0
}

pub fn list_qdiscs() -> Message {
    let body = [0; TC_INFO_LEN];
    Message::new("list queueing disciplines", libc::RTM_GETQDISC, libc::NLM_F_DUMP, &body)
}

/// Link index and kind.
pub fn decode_qdisc(body: &[u8]) -> Option<(u32, String)> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    Some((index, Attributes::after(body, TC_INFO_LEN)?.string(TCA_KIND)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HEADER_LEN;

    #[test]
    fn a_port_is_read_with_isolation_and_queueing() {
        let message = Message::new("", 16, 0, &info(0, 7, 0, 0))
            .string(libc::IFLA_IFNAME, "veth1")
            .string(IFLA_QDISC, "tbf")
            .nest(libc::IFLA_LINKINFO, |m| {
                m.nest(IFLA_INFO_SLAVE_DATA, |m| m.attribute(IFLA_BRPORT_ISOLATED, &[1]))
            });
        let port = PortLink::decode(&message.sealed(1, false)[HEADER_LEN..]).expect("a port");
        assert_eq!((port.link.index, port.isolated, port.qdisc.as_deref()), (7, true, Some("tbf")));
        assert_eq!(PortLink::decode(&[0; 15]), None);
        assert_eq!(decode_qdisc(&[0; 7]), None);
    }
}
