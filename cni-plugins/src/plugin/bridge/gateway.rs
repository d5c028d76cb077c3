//! The bridge as gateway: which addresses it needs (pure), and putting them there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::route::{Link, LinkChange, encode};
use corten_netlink::{Cidr, Socket};
use nix::errno::Errno;

use super::config::Config;
use crate::Result;
use crate::error::Error;
use crate::sysctl;
use crate::types::{CniResult, Route};

/// The index of the container's interface in our result: bridge, host veth, container.
const CONTAINER_INTERFACE: usize = 2;

/// Completes what IPAM said (interface, gateway, default route) and returns the bridge's addresses.
pub fn complete(result: &mut CniResult, config: &Config) -> Result<Vec<Cidr>> {
    if result.ips.is_empty() {
        return Err(Error::internal("IPAM plugin returned missing IP config"));
    }
    let mut gateways = Vec::new();
    for ip in &mut result.ips {
        ip.interface = Some(CONTAINER_INTERFACE);
        if !config.is_gateway {
            continue;
        }
        let gateway = *ip.gateway.get_or_insert_with(|| first_of(ip.address));
        let cidr = Cidr::new(gateway, ip.address.prefix());
        let problem = || Error::config(format!("gateway {gateway} is not of the family of {}", ip.address));
        gateways.push(cidr.filter(|g| g.is_ipv4() == ip.address.is_ipv4()).ok_or_else(problem)?);
    }
    if config.is_default_gateway {
        for ipv4 in [true, false] {
            let Some(gateway) = gateways.iter().find(|g| g.is_ipv4() == ipv4) else { continue };
            let default = default_of(ipv4);
            if !result.routes.iter().any(|route| route.dst == default && route.gw.is_some()) {
                result.routes.push(Route::to(default, Some(gateway.address())));
            }
        }
    }
    Ok(gateways)
}

fn default_of(ipv4: bool) -> Cidr {
    let address: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Cidr::new(address, 0).expect("a prefix of no bits")
}

/// The first address of the network.
fn first_of(cidr: Cidr) -> IpAddr {
    match cidr.network().address() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
    }
}

/// What has to happen for the bridge to have `wanted`, which it does not have yet.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Add { after_deleting: Vec<Cidr> },
    Refuse(Cidr),
}

/// A bridge has one IPv4 address, and IPv6 addresses of subnets that do not overlap.
fn step(existing: &[Cidr], wanted: Cidr, force: bool) -> Step {
    if existing.contains(&wanted) {
        return Step::Nothing;
    }
    let same_family = existing.iter().filter(|e| e.is_ipv4() == wanted.is_ipv4());
    let in_the_way: Vec<Cidr> =
        same_family.filter(|e| wanted.is_ipv4() || e.overlaps(wanted)).copied().collect();
    match in_the_way.first() {
        Some(other) if !force => Step::Refuse(*other),
        _ => Step::Add { after_deleting: in_the_way },
    }
}

pub fn ensure_on_bridge(host: &mut Socket, bridge: &Link, gateways: &[Cidr], force: bool) -> Result<()> {
    if gateways.is_empty() {
        return Ok(());
    }
    let mut existing: Vec<Cidr> = host.addresses(bridge.index)?.iter().map(|a| a.cidr).collect();
    for gateway in gateways {
        let after_deleting = match step(&existing, *gateway, force) {
            Step::Nothing => continue,
            Step::Refuse(other) => {
                let text = format!("{:?} already has an IP address different from {gateway}", bridge.name);
                let remedy = format!("it has {other}; delete it, or set forceAddress");
                return Err(Error::config(text).details(remedy));
            }
            Step::Add { after_deleting } => after_deleting,
        };
        for other in &after_deleting {
            host.transact(vec![encode::delete_address(bridge.index, *other)])?;
        }
        existing.retain(|e| !after_deleting.contains(e));
        existing.push(*gateway);
        // Upstream lets the kernel look for duplicates of it, and the first pods cannot reach it for two seconds.
        match host.transact(vec![encode::add_address_undetected(bridge.index, *gateway)]) {
            // Another ADD was faster.
            Err(error) if !error.is(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
        // Setting the MAC to itself keeps it: else the bridge takes the lowest of its ports' and flaps.
        let change = LinkChange { mac: bridge.mac, ..LinkChange::default() };
        host.transact(vec![encode::set_link(bridge.index, &change)])?;
    }
    for (ipv4, key) in [(true, "net/ipv4/ip_forward"), (false, "net/ipv6/conf/all/forwarding")] {
        if gateways.iter().any(|g| g.is_ipv4() == ipv4) {
            sysctl::set(key, "1")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IpConfig;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a cidr")
    }

    #[test]
    fn one_ipv4_address_and_disjoint_ipv6_ones() {
        let has = [cidr("10.1.0.1/16"), cidr("fd00::1/64"), cidr("fe80::1/64")];
        assert_eq!(step(&has, cidr("10.1.0.1/16"), false), Step::Nothing);
        assert_eq!(step(&has, cidr("10.2.0.1/16"), false), Step::Refuse(has[0]));
        assert_eq!(step(&has, cidr("10.2.0.1/16"), true), Step::Add { after_deleting: vec![has[0]] });
        assert_eq!(step(&has, cidr("fd01::1/64"), false), Step::Add { after_deleting: vec![] });
        assert_eq!(step(&has, cidr("fd00::2/64"), false), Step::Refuse(has[1]));
    }

    #[test]
    fn gateways_and_default_routes_are_completed() {
        let config = |default: bool| {
            let json = serde_json::json!({"isGateway": true, "isDefaultGateway": default});
            let network = crate::skel::Network {
                name: "n".into(),
                version: crate::types::Version::LATEST,
                config: json,
                stdin: Vec::new(),
                path: Vec::new(),
            };
            Config::of_network(&network).expect("fine")
        };
        let ips = |texts: &[&str]| {
            texts.iter().map(|t| IpConfig { address: cidr(t), gateway: None, interface: None }).collect()
        };
        let mut result = CniResult { ips: ips(&["10.1.2.7/24", "fd00::7/64"]), ..CniResult::default() };
        let gateways = complete(&mut result, &config(false)).expect("complete");
        assert_eq!(gateways, [cidr("10.1.2.1/24"), cidr("fd00::1/64")]);
        assert!(result.routes.is_empty());
        assert!(result.ips.iter().all(|ip| ip.interface == Some(2)));
        complete(&mut result, &config(true)).expect("complete");
        let routes: Vec<String> = result.routes.iter().map(|r| format!("{} {:?}", r.dst, r.gw)).collect();
        assert_eq!(routes, ["0.0.0.0/0 Some(10.1.2.1)", "::/0 Some(fd00::1)"]);
        complete(&mut result, &config(true)).expect("complete");
        assert_eq!(result.routes.len(), 2, "they are there already");
        assert!(complete(&mut CniResult::default(), &config(true)).is_err(), "no address");
    }
}
