//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;
use crate::message::{Attributes, Message};

const INFO_LEN: usize = 12;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

/// A unicast route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    /// `None`: table main (254).
    pub table: Option<u32>,
    /// RT_SCOPE_*: 0 global, 253 link.
    pub scope: u8,
    /// The metric; 0 is the kernel's default.
    pub priority: u32,
    pub mtu: Option<u32>,
    pub advmss: Option<u32>,
}

impl Route {
    pub fn to(destination: Cidr) -> Self {
        let (gateway, link, table, mtu, advmss) = (None, None, None, None, None);
        Self { destination, gateway, link, table, scope: 0, priority: 0, mtu, advmss }
    }

    /// `None` for what is not unicast.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, INFO_LEN)?;
        let unspecified = match i32::from(body[0]) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        if body[7] != libc::RTN_UNICAST {
            return None;
        }
        let metrics = attributes.nested(libc::RTA_METRICS);
        Some(Self {
            destination: Cidr::new(attributes.address(libc::RTA_DST).unwrap_or(unspecified), body[1])?,
            gateway: attributes.address(libc::RTA_GATEWAY),
            link: attributes.u32(libc::RTA_OIF),
            table: attributes.u32(libc::RTA_TABLE),
            scope: body[6],
            priority: attributes.u32(libc::RTA_PRIORITY).unwrap_or_default(),
            mtu: metrics.as_ref().and_then(|m| m.u32(RTAX_MTU)),
            advmss: metrics.as_ref().and_then(|m| m.u32(RTAX_ADVMSS)),
        })
    }
}

fn info(ipv4: bool, destination_len: u8, scope: u8) -> [u8; INFO_LEN] {
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = [0; INFO_LEN];
    body[0] = family as u8;
    body[1] = destination_len;
    body[6] = scope;
    body
}

pub fn list(ipv4: bool) -> Message {
    Message::new("list routes", libc::RTM_GETROUTE, libc::NLM_F_DUMP, &info(ipv4, 0, 0))
}

pub fn lookup(address: IpAddr) -> Message {
    let host = Cidr::host(address);
    let body = info(host.is_ipv4(), host.prefix(), 0);
    Message::new(format!("look up the route to {address}"), libc::RTM_GETROUTE, 0, &body)
        .address(libc::RTA_DST, address)
}

/// Adds beside routes of the same destination (NLM_F_APPEND is implied for IPv6: multipath).
pub fn add(route: &Route) -> Message {
    let destination = route.destination;
    let mut body = info(destination.is_ipv4(), destination.prefix(), route.scope);
    body[4] = match route.table {
        None => libc::RT_TABLE_MAIN,
        Some(table) => u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC),
    };
    body[5] = libc::RTPROT_BOOT;
    body[7] = libc::RTN_UNICAST;
    let what = match route.gateway {
        Some(gateway) => format!("add route {destination} via {gateway}"),
        None => format!("add route {destination}"),
    };
    let mut message = Message::new(what, libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &body);
    if destination.prefix() > 0 {
        message = message.address(libc::RTA_DST, destination.address());
    }
    if let Some(gateway) = route.gateway {
        message = message.address(libc::RTA_GATEWAY, gateway);
    }
    if let Some(table) = route.table {
        message = message.u32(libc::RTA_TABLE, table);
    }
    if let Some(link) = route.link {
        message = message.u32(libc::RTA_OIF, link);
    }
    if route.priority != 0 {
        message = message.u32(libc::RTA_PRIORITY, route.priority);
    }
    if route.mtu.is_some() || route.advmss.is_some() {
        message = message.nest(libc::RTA_METRICS, |m| {
            let m = route.mtu.into_iter().fold(m, |m, v| m.u32(RTAX_MTU, v));
            route.advmss.into_iter().fold(m, |m, v| m.u32(RTAX_ADVMSS, v))
        });
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_encoding() {
        let plain = Route::to("10.0.0.0/8".parse().unwrap());
        let full = Route {
            gateway: Some("fd00::1".parse().unwrap()),
            link: Some(2),
            table: Some(1000),
            priority: 50,
            mtu: Some(1300),
            advmss: Some(1200),
            ..Route::to("::/0".parse().unwrap())
        };
        for route in [plain, full] {
            let bytes = add(&route).sealed(1, true);
            assert_eq!(Route::decode(&bytes[crate::message::HEADER_LEN..]), Some(route));
        }
    }

    #[test]
    fn what_is_short_or_not_unicast_is_skipped() {
        assert_eq!(Route::decode(&[0; 11]), None);
        let mut local = info(true, 32, 0);
        local[7] = libc::RTN_LOCAL;
        assert_eq!(Route::decode(&local), None);
    }
}
