//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;
use crate::message::{Attributes, Message, address_bytes, address_from};

const INFO_LEN: usize = 12;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
/// A gateway of another family than the destination's: struct rtvia, a family and the address.
const RTA_VIA: u16 = 18;
const RTNH_F_ONLINK: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    Unicast,
    /// Silently dropped.
    Blackhole,
}

/// A route with at most one next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    pub destination: Cidr,
    pub kind: RouteKind,
    pub gateway: Option<IpAddr>,
    /// The gateway is taken to be on the link, whatever its address.
    pub onlink: bool,
    pub link: Option<u32>,
    /// `None`: table main (254).
    pub table: Option<u32>,
    /// RT_SCOPE_*: 0 global, 253 link.
    pub scope: u8,
    /// RTPROT_*: who entered it; 2 the kernel, 3 (the default here) an administrator's program.
    pub protocol: u8,
    /// The metric; 0 is the kernel's default (which IPv6 stores as 1024).
    pub priority: u32,
    /// The source address that the node's own packets get.
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
    pub advmss: Option<u32>,
}

impl Route {
    pub fn to(destination: Cidr) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            gateway: None,
            onlink: false,
            link: None,
            table: None,
            scope: 0,
            protocol: libc::RTPROT_BOOT,
            priority: 0,
            source: None,
            mtu: None,
            advmss: None,
        }
    }

    /// `None` for what is neither unicast nor a blackhole. Of a route with several next hops none is told.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, INFO_LEN)?;
        let unspecified = match i32::from(body[0]) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let kind = match body[7] {
            libc::RTN_UNICAST => RouteKind::Unicast,
            libc::RTN_BLACKHOLE => RouteKind::Blackhole,
            _ => return None,
        };
        let via = || attributes.get(RTA_VIA).and_then(|via| address_from(via.get(2..)?));
        let metrics = attributes.nested(libc::RTA_METRICS);
        let flags = u32::from_ne_bytes(body[8..12].try_into().ok()?);
        Some(Self {
            destination: Cidr::new(attributes.address(libc::RTA_DST).unwrap_or(unspecified), body[1])?,
            kind,
            gateway: attributes.address(libc::RTA_GATEWAY).or_else(via),
            onlink: flags & RTNH_F_ONLINK != 0,
            link: attributes.u32(libc::RTA_OIF),
            table: attributes.u32(libc::RTA_TABLE),
            scope: body[6],
            protocol: body[5],
            priority: attributes.u32(libc::RTA_PRIORITY).unwrap_or_default(),
            source: attributes.address(libc::RTA_PREFSRC),
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

/// Of every table.
pub fn list(ipv4: bool) -> Message {
    Message::new("list routes", libc::RTM_GETROUTE, libc::NLM_F_DUMP, &info(ipv4, 0, 0))
}

/// Of table main. The kernel has none (ENOENT) until the first IPv4 route is entered.
pub fn list_main(ipv4: bool) -> Message {
    let mut body = info(ipv4, 0, 0);
    body[4] = libc::RT_TABLE_MAIN;
    Message::new("list the routes of table main", libc::RTM_GETROUTE, libc::NLM_F_DUMP, &body)
}

pub fn lookup(address: IpAddr) -> Message {
    let host = Cidr::host(address);
    let body = info(host.is_ipv4(), host.prefix(), 0);
    Message::new(format!("look up the route to {address}"), libc::RTM_GETROUTE, 0, &body)
        .address(libc::RTA_DST, address)
}

/// Adds beside routes of the same destination (NLM_F_APPEND is implied for IPv6: multipath).
pub fn add(route: &Route) -> Message {
    change("add", libc::RTM_NEWROUTE, libc::NLM_F_CREATE, route)
}

/// Adds, or takes the place of the first route of the same destination, table and metric, without a moment between.
pub fn replace(route: &Route) -> Message {
    change("put", libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, route)
}

/// ESRCH when there is none that agrees in everything given.
pub fn delete(route: &Route) -> Message {
    change("delete", libc::RTM_DELROUTE, 0, route)
}

fn change(verb: &str, kind: u16, flags: i32, route: &Route) -> Message {
    let destination = route.destination;
    let mut body = info(destination.is_ipv4(), destination.prefix(), route.scope);
    body[4] = match route.table {
        None => libc::RT_TABLE_MAIN,
        Some(table) => u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC),
    };
    body[5] = route.protocol;
    body[7] = match route.kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Blackhole => libc::RTN_BLACKHOLE,
    };
    let route_flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
    body[8..12].copy_from_slice(&route_flags.to_ne_bytes());
    let what = match route.gateway {
        Some(gateway) => format!("{verb} route {destination} via {gateway}"),
        None => format!("{verb} route {destination}"),
    };
    let mut message = Message::new(what, kind, flags, &body);
    if destination.prefix() > 0 {
        message = message.address(libc::RTA_DST, destination.address());
    }
    message = match route.gateway {
        None => message,
        Some(gateway) if gateway.is_ipv4() == destination.is_ipv4() => {
            message.address(libc::RTA_GATEWAY, gateway)
        }
        Some(gateway) => message.attribute(RTA_VIA, &via(gateway)),
    };
    let numbers = [
        (libc::RTA_TABLE, route.table),
        (libc::RTA_OIF, route.link),
        (libc::RTA_PRIORITY, (route.priority != 0).then_some(route.priority)),
    ];
    for (attribute, value) in numbers {
        message = value.into_iter().fold(message, |m, value| m.u32(attribute, value));
    }
    message = route.source.into_iter().fold(message, |m, source| m.address(libc::RTA_PREFSRC, source));
    if route.mtu.is_some() || route.advmss.is_some() {
        message = message.nest(libc::RTA_METRICS, |m| {
            let m = route.mtu.into_iter().fold(m, |m, v| m.u32(RTAX_MTU, v));
            route.advmss.into_iter().fold(m, |m, v| m.u32(RTAX_ADVMSS, v))
        });
    }
    message
}

fn via(gateway: IpAddr) -> Vec<u8> {
    let family = if gateway.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend(address_bytes(gateway));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_encoding() {
        let plain = Route::to("10.0.0.0/8".parse().unwrap());
        let full = Route {
            gateway: Some("fd00::1".parse().unwrap()),
            onlink: true,
            link: Some(2),
            table: Some(1000),
            protocol: 67,
            priority: 50,
            source: Some("fd00::2".parse().unwrap()),
            mtu: Some(1300),
            advmss: Some(1200),
            ..Route::to("::/0".parse().unwrap())
        };
        let other_family = Route { gateway: Some("fe80::1".parse().unwrap()), ..plain };
        let blackhole = Route { kind: RouteKind::Blackhole, ..plain };
        for route in [plain, full, other_family, blackhole] {
            for message in [add(&route), replace(&route), delete(&route)] {
                let bytes = message.sealed(1, true);
                assert_eq!(Route::decode(&bytes[crate::message::HEADER_LEN..]), Some(route));
            }
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
