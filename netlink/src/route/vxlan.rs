//! Vxlan devices (linux/if_link.h, IFLA_VXLAN_*).

use std::net::IpAddr;

use super::link::{IFF_UP, IFLA_INFO_DATA, IFLA_INFO_KIND, Mac, info};
use crate::message::{Attributes, Message};

const KIND: &str = "vxlan";
const ID: u16 = 1;
const LINK: u16 = 3;
const LOCAL: u16 = 4;
const LEARNING: u16 = 7;
const PORT: u16 = 15;
const LOCAL6: u16 = 17;
const UDP_CSUM: u16 = 18;
/// Take IPv6 packets without a UDP checksum; cannot be changed later.
const UDP_ZERO_CSUM6_RX: u16 = 20;
const GBP: u16 = 23;

/// What makes one vxlan device differ from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// The outer source address; its family is the tunnel's.
    pub local: Option<IpAddr>,
    /// The underlay device.
    pub link: Option<u32>,
    /// Forwarding entries are made from what arrives.
    pub learning: bool,
    /// The group based policy extension of the header.
    pub gbp: bool,
    /// UDP checksum of outer IPv4. (Outer IPv6 always has one: receivers drop packets without it by default.)
    pub checksum: bool,
}

impl Vxlan {
    /// From IFLA_INFO_DATA.
    pub(super) fn decode(data: &Attributes<'_>) -> Option<Self> {
        let local = data.address(LOCAL).or_else(|| data.address(LOCAL6));
        Some(Self {
            vni: data.u32(ID)?,
            port: data.be16(PORT)?,
            local: local.filter(|address| !address.is_unspecified()),
            link: data.u32(LINK).filter(|index| *index != 0),
            learning: data.u8(LEARNING).unwrap_or_default() != 0,
            gbp: data.get(GBP).is_some(),
            checksum: data.u8(UDP_CSUM).unwrap_or_default() != 0,
        })
    }
}

/// A new device, down. EEXIST: the name is taken, or another device has the VNI and port; EOPNOTSUPP: this kernel
/// has no vxlan. `mtu` 0 leaves the kernel's default.
pub fn create(name: &str, mac: Option<Mac>, mtu: u32, vxlan: &Vxlan) -> Message {
    let message = Message::new(
        format!("create vxlan device {name} (VNI {}, UDP port {})", vxlan.vni, vxlan.port),
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &info(0, 0, 0, IFF_UP),
    )
    .string(libc::IFLA_IFNAME, name);
    let message = mac.into_iter().fold(message, |m, mac| m.attribute(libc::IFLA_ADDRESS, &mac.0));
    let message = if mtu == 0 { message } else { message.u32(libc::IFLA_MTU, mtu) };
    message.nest(libc::IFLA_LINKINFO, |m| {
        m.string(IFLA_INFO_KIND, KIND).nest(IFLA_INFO_DATA, |m| {
            let m = changeable(m.u32(ID, vxlan.vni), vxlan).attribute(PORT, &vxlan.port.to_be_bytes());
            let m = m.attribute(UDP_CSUM, &[u8::from(vxlan.checksum)]);
            // The inner checksums are there; an eBPF sender cannot compute the outer one.
            let m = m.attribute(UDP_ZERO_CSUM6_RX, &[1]);
            if vxlan.gbp { m.attribute(GBP, &[]) } else { m }
        })
    })
}

/// Changes what the kernel can change in a living device: local address, underlay device, learning.
pub fn set(index: u32, vxlan: &Vxlan) -> Message {
    let what = format!("change the local address or link of vxlan device {index}");
    Message::new(what, libc::RTM_NEWLINK, 0, &info(0, index, 0, 0)).nest(libc::IFLA_LINKINFO, |m| {
        m.string(IFLA_INFO_KIND, KIND).nest(IFLA_INFO_DATA, |m| changeable(m, vxlan))
    })
}

fn changeable(m: Message, vxlan: &Vxlan) -> Message {
    let m = vxlan.link.into_iter().fold(m, |m, link| m.u32(LINK, link));
    let m = match vxlan.local {
        None => m,
        Some(local) => m.address(if local.is_ipv4() { LOCAL } else { LOCAL6 }, local),
    };
    m.attribute(LEARNING, &[u8::from(vxlan.learning)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::link::INFO_LEN;

    #[test]
    fn a_vxlan_device_survives_encoding() {
        for local in ["10.0.0.1", "fd00::1"] {
            let vxlan = Vxlan {
                vni: 7,
                port: 8472,
                local: Some(local.parse().unwrap()),
                link: Some(2),
                learning: true,
                gbp: true,
                checksum: true,
            };
            let message = create("flannel.7", Some(Mac([2, 0, 0, 0, 0, 1])), 1450, &vxlan);
            let attributes = message.attributes(INFO_LEN);
            assert_eq!(attributes.string(libc::IFLA_IFNAME).as_deref(), Some("flannel.7"));
            assert_eq!(attributes.u32(libc::IFLA_MTU), Some(1450));
            let data = attributes.nested(libc::IFLA_LINKINFO).and_then(|i| i.nested(IFLA_INFO_DATA));
            assert_eq!(Vxlan::decode(&data.expect("data")), Some(vxlan));
        }
    }
}
