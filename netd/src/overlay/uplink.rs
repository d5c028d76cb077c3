//! The uplink: the link by which other nodes are reached, its addresses and MTU. Pure: [`choose`] sees dumps alone.
//!
//! In flannel's order: each `--iface` (a name or an address), each `--iface-regex` (against addresses, then names),
//! `--iface-can-reach`, else the link that has the public address, else the link of the default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::route::{Address, Link, Route, RouteKind};
use regex_lite::Regex;

use crate::node::{Dual, PublicIps};

const SCOPE_GLOBAL: u8 = 0;

/// The daemon's options. The first that finds a link decides.
#[derive(Debug, Clone, Default)]
pub struct UplinkOptions {
    /// Names or addresses of links.
    pub iface: Vec<String>,
    pub iface_regex: Vec<Regex>,
    pub iface_can_reach: Option<IpAddr>,
    /// What the others are told instead of the uplink's own addresses.
    pub public_ips: PublicIps,
}

impl UplinkOptions {
    /// The default route decides.
    pub fn by_default_route(&self) -> bool {
        self.iface.is_empty() && self.iface_regex.is_empty() && self.iface_can_reach.is_none()
    }
}

/// Which families the cluster uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// What is known of this host's links.
#[derive(Debug, Clone, Copy)]
pub struct Survey<'a> {
    pub links: &'a [Link],
    pub addresses: &'a [Address],
    /// Table main, of both families.
    pub routes: &'a [Route],
    /// The link towards [`UplinkOptions::iface_can_reach`].
    pub reaching: Option<u32>,
    /// The uplink of the pass before, or of the tunnel device that was found: it stays the uplink while there is no
    /// default route (a link that flaps loses its routes).
    pub former: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    /// Its own addresses: the tunnels' outer source. `None`: the family is not used, or there is no address now.
    pub addresses: PublicIps,
    /// What the others are told.
    pub public_ips: PublicIps,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    #[error("no link has the name or address {wanted} (of --iface or --iface-regex); links here: {links}")]
    NoMatch { wanted: String, links: String },
    #[error("there is no route to {0}, which --iface-can-reach names")]
    Unreachable(IpAddr),
    #[error("there is no default route to choose the uplink by; name it with --iface")]
    NoDefaultRoute,
    #[error("uplink {link} has no usable {family} address; give it one, or name another link with --iface")]
    NoAddress { link: String, family: &'static str },
}

impl UplinkError {
    /// All may pass: a link may appear, an address may come by DHCP.
    pub fn is_final(&self) -> bool {
        false
    }
}

/// # Errors
/// When no link can be chosen. A family that the link has no address of is left out of [`Uplink::addresses`].
pub fn choose(
    options: &UplinkOptions,
    families: Families,
    survey: &Survey<'_>,
) -> Result<Uplink, UplinkError> {
    let (link, wanted) = choose_link(options, families, survey)?;
    let v4 = || -> Option<Ipv4Addr> {
        best(link.index, survey, wanted, options.public_ips.v4.map(IpAddr::V4), v4)
    };
    let v6 = || -> Option<Ipv6Addr> {
        best(link.index, survey, wanted, options.public_ips.v6.map(IpAddr::V6), v6)
    };
    let addresses = Dual { v4: families.v4.then(v4).flatten(), v6: families.v6.then(v6).flatten() };
    let told = options.public_ips;
    Ok(Uplink {
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        up: link.up,
        addresses,
        public_ips: Dual {
            v4: if families.v4 { told.v4.or(addresses.v4) } else { None },
            v6: if families.v6 { told.v6.or(addresses.v6) } else { None },
        },
    })
}

/// The link, and the address it was asked for by.
fn choose_link<'a>(
    options: &UplinkOptions,
    families: Families,
    survey: &Survey<'a>,
) -> Result<(&'a Link, Option<IpAddr>), UplinkError> {
    for iface in &options.iface {
        if let Ok(address) = iface.parse::<IpAddr>() {
            if let Some(link) = with_address(survey, |a| a == address).next() {
                return Ok((link, Some(address)));
            }
        } else if let Some(link) = survey.links.iter().find(|link| link.name == *iface) {
            return Ok((link, None));
        }
    }
    for regex in &options.iface_regex {
        let by_address = with_address(survey, |a| regex.is_match(&a.to_string())).next();
        let by_name = || survey.links.iter().find(|link| regex.is_match(&link.name));
        if let Some(link) = by_address.or_else(by_name) {
            return Ok((link, None));
        }
    }
    if !options.iface.is_empty() || !options.iface_regex.is_empty() {
        let regexes = options.iface_regex.iter().map(Regex::as_str);
        let wanted: Vec<&str> = options.iface.iter().map(String::as_str).chain(regexes).collect();
        let links: Vec<&str> = survey.links.iter().map(|link| link.name.as_str()).take(16).collect();
        return Err(UplinkError::NoMatch { wanted: wanted.join(" or "), links: links.join(", ") });
    }
    let by_index = |index: u32| survey.links.iter().find(|link| link.index == index);
    if let Some(target) = options.iface_can_reach {
        let link = survey.reaching.or(survey.former).and_then(by_index);
        return link.map(|link| (link, None)).ok_or(UplinkError::Unreachable(target));
    }
    let told = [options.public_ips.v4.map(IpAddr::V4), options.public_ips.v6.map(IpAddr::V6)];
    for public in told.into_iter().flatten() {
        if let Some(link) = with_address(survey, |a| a == public).next() {
            return Ok((link, Some(public)));
        }
    }
    let default = [(families.v4, true), (families.v6, false)]
        .into_iter()
        .filter(|(used, _)| *used)
        .find_map(|(_, ipv4)| default_link(survey.routes, ipv4));
    let link = default.or(survey.former).and_then(by_index);
    link.map(|link| (link, None)).ok_or(UplinkError::NoDefaultRoute)
}

/// The link of the default route with the least metric.
fn default_link(routes: &[Route], ipv4: bool) -> Option<u32> {
    let default = |route: &&Route| {
        route.kind == RouteKind::Unicast
            && route.destination.prefix() == 0
            && route.destination.is_ipv4() == ipv4
            && route.link.is_some()
    };
    routes.iter().filter(default).min_by_key(|route| route.priority).and_then(|route| route.link)
}

/// Links, in the order of their addresses, that have an address like this.
fn with_address<'a>(survey: &Survey<'a>, matches: impl Fn(IpAddr) -> bool) -> impl Iterator<Item = &'a Link> {
    let links = survey.links;
    let addresses = survey.addresses.iter();
    addresses
        .filter(move |a| matches(a.cidr.address()))
        .filter_map(move |a| links.iter().find(|link| link.index == a.index))
}

/// The address of a family to use: the one asked for, the one the others are told, else the first global one, rather
/// not secondary, temporary or deprecated.
fn best<T>(
    link: u32,
    survey: &Survey<'_>,
    wanted: Option<IpAddr>,
    told: Option<IpAddr>,
    family: impl Fn(IpAddr) -> Option<T>,
) -> Option<T> {
    let usable =
        |a: &&Address| a.index == link && a.scope == SCOPE_GLOBAL && !a.tentative() && !a.duplicate();
    let of_family: Vec<&Address> =
        survey.addresses.iter().filter(usable).filter(|a| family(a.cidr.address()).is_some()).collect();
    let rank = |a: &&&Address| {
        let address = Some(a.cidr.address());
        (address != wanted, address != told, a.deprecated(), a.temporary(), a.secondary())
    };
    of_family.iter().min_by_key(rank).and_then(|a| family(a.cidr.address()))
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_netlink::Cidr;

    const BOTH: Families = Families { v4: true, v6: true };

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), mtu: 1500, up: true, ..Link::default() }
    }

    /// An address as the kernel would report it.
    fn address(index: u32, cidr: &str, flags: i32) -> Address {
        let cidr: Cidr = cidr.parse().unwrap();
        let family = if cidr.is_ipv4() { 2 } else { 10 };
        let scope = if cidr.to_string().starts_with("fe80") { 253 } else { 0 };
        let mut body = vec![family, cidr.prefix(), 0, scope];
        body.extend(index.to_ne_bytes());
        let bytes = corten_netlink::message::address_bytes(cidr.address());
        for (kind, value) in [(2_u16, bytes.as_slice()), (8, &flags.to_ne_bytes())] {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
        }
        Address::decode(&body).expect("an address")
    }

    fn default_route(link: u32, destination: &str, priority: u32) -> Route {
        Route { link: Some(link), priority, ..Route::to(destination.parse().unwrap()) }
    }

    fn chosen(
        options: &UplinkOptions,
        change: impl FnOnce(&mut Survey<'_>),
    ) -> Result<(String, PublicIps), UplinkError> {
        let links = [link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "wlan0")];
        let addresses = [
            address(2, "10.0.0.9/24", libc_flag::SECONDARY),
            address(2, "10.0.0.2/24", 0),
            address(2, "fe80::2/64", 0),
            address(2, "2001:db8::99/64", libc_flag::SECONDARY),
            address(2, "2001:db8::2/64", 0),
            address(3, "192.168.0.3/24", 0),
            address(3, "fd00::3/64", libc_flag::TENTATIVE),
            address(4, "172.16.0.4/24", libc_flag::DEPRECATED),
        ];
        let routes = [
            default_route(3, "0.0.0.0/0", 200),
            default_route(2, "0.0.0.0/0", 100),
            default_route(3, "::/0", 1024),
        ];
        let mut survey =
            Survey { links: &links, addresses: &addresses, routes: &routes, reaching: None, former: None };
        change(&mut survey);
        choose(options, BOTH, &survey).map(|uplink| (uplink.name, uplink.addresses))
    }

    /// IFA_F_*; the first means "temporary" for IPv6.
    mod libc_flag {
        pub const SECONDARY: i32 = 0x01;
        pub const DEPRECATED: i32 = 0x20;
        pub const TENTATIVE: i32 = 0x40;
    }

    fn ips(v4: &str, v6: &str) -> PublicIps {
        Dual { v4: v4.parse().ok(), v6: v6.parse().ok() }
    }

    #[test]
    fn the_options_decide_in_flannels_order() {
        let by = |iface: &[&str], regex: &[&str]| UplinkOptions {
            iface: iface.iter().map(ToString::to_string).collect(),
            iface_regex: regex.iter().map(|r| r.parse().unwrap()).collect(),
            ..UplinkOptions::default()
        };
        for (options, name, addresses) in [
            (by(&[], &[]), "eth0", ips("10.0.0.2", "2001:db8::2")),
            (by(&["eth0"], &[]), "eth0", ips("10.0.0.2", "2001:db8::2")),
            (by(&["10.0.0.9"], &[]), "eth0", ips("10.0.0.9", "2001:db8::2")),
            (by(&["eth9", "eth1", "eth0"], &["^wlan"]), "eth1", ips("192.168.0.3", "")),
            (by(&["eth9"], &["^wlan"]), "wlan0", ips("172.16.0.4", "")),
            (by(&[], &["^192\\.168\\.", "^eth0$"]), "eth1", ips("192.168.0.3", "")),
            (by(&[], &["nothing", "th1$"]), "eth1", ips("192.168.0.3", "")),
        ] {
            assert_eq!(chosen(&options, |_| {}), Ok((name.to_owned(), addresses)), "{options:?}");
        }
        let missing = chosen(&by(&["eth9"], &["^ppp"]), |_| {}).expect_err("none");
        assert!(
            missing.to_string().contains("eth9 or ^ppp") && missing.to_string().contains("wlan0"),
            "{missing}"
        );
    }

    #[test]
    fn what_can_be_reached_and_the_default_route_decide_and_a_flap_does_not() {
        let target = "192.168.0.77".parse().unwrap();
        let reach = UplinkOptions { iface_can_reach: Some(target), ..UplinkOptions::default() };
        let name = |outcome: Result<(String, PublicIps), UplinkError>| outcome.map(|(name, _)| name);
        assert_eq!(name(chosen(&reach, |s| s.reaching = Some(3))), Ok("eth1".into()));
        assert_eq!(name(chosen(&reach, |_| {})), Err(UplinkError::Unreachable(target)));
        assert_eq!(name(chosen(&reach, |s| s.former = Some(2))), Ok("eth0".into()));
        let default = UplinkOptions::default();
        assert_eq!(name(chosen(&default, |s| s.routes = &[])), Err(UplinkError::NoDefaultRoute));
        let flapping = chosen(&default, |s| (s.routes, s.former) = (&[], Some(3)));
        assert_eq!(name(flapping), Ok("eth1".into()));
    }

    #[test]
    fn a_told_address_of_the_link_is_also_the_tunnels() {
        let options =
            UplinkOptions { public_ips: ips("10.0.0.9", "2001:db8:9::9"), ..UplinkOptions::default() };
        assert_eq!(chosen(&options, |_| {}), Ok(("eth0".into(), ips("10.0.0.9", "2001:db8::2"))));
    }
}
