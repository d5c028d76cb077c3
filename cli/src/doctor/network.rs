//! The network: whether the pods' addresses are free, and what the kernel forwards.

use std::fs;
use std::net::Ipv4Addr;

use super::Finding;
use crate::instance::Settings;

/// `own_network`: the instance runs, so its bridge and route are its own.
pub fn check(settings: &Settings, own_network: bool) -> Vec<Finding> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let own_link = own_network.then_some(settings.bridge.as_str());
    let bridge_taken =
        !own_network && fs::exists(format!("/proc/sys/net/ipv4/conf/{}", settings.bridge)).unwrap_or(false);
    vec![
        pod_cidr(&settings.pod_cidr, &routes, own_link),
        bridge(&settings.bridge, bridge_taken),
        forwarding(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default().trim()),
        bridge_netfilter(fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").ok().as_deref()),
    ]
}

/// `10.88.0.0/16` as (first address, prefix length); the address is masked.
pub fn parse_cidr(text: &str) -> Option<(u32, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u32 = prefix.parse().ok().filter(|p| *p <= 32)?;
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?) & mask(prefix), prefix))
}

fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

fn pod_cidr(cidr: &str, routes: &str, own_link: Option<&str>) -> Finding {
    let Some((network, prefix)) = parse_cidr(cidr) else {
        return Finding::failure(
            "pod addresses",
            format!("{cidr:?} is no IPv4 subnet"),
            "use a form like 10.88.0.0/16",
        );
    };
    // Columns of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask, addresses little-endian hex.
    let overlap = routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok().map(u32::swap_bytes);
        let (destination, route_mask) = (hex(1)?, hex(7)?);
        let common = route_mask & mask(prefix);
        let other = route_mask != 0 && Some(fields[0]) != own_link;
        (other && destination & common == network & common)
            .then(|| format!("{}/{} on {}", Ipv4Addr::from(destination), route_mask.count_ones(), fields[0]))
    });
    match overlap {
        None => Finding::ok("pod addresses", format!("{cidr} is free")),
        Some(route) => Finding::failure(
            "pod addresses",
            format!("{cidr} overlaps the route {route}: pods or that network would be cut off"),
            "choose another subnet with `corten up --pod-cidr`",
        ),
    }
}

fn bridge(name: &str, taken: bool) -> Finding {
    if !taken {
        return Finding::ok("bridge", format!("{name} is free or ours"));
    }
    Finding::warning(
        "bridge",
        format!("a link {name} is there already and no corten of this place runs; its pods will share it"),
        "choose another name with `corten up --bridge`, or `corten down` the instance that made it",
    )
}

fn forwarding(value: &str) -> Finding {
    match value {
        "1" => Finding::ok("forwarding", "IPv4 forwarding is on"),
        _ => Finding::ok(
            "forwarding",
            "IPv4 forwarding is off: the bridge plugin turns it on, `corten down` off again",
        ),
    }
}

fn bridge_netfilter(value: Option<&str>) -> Finding {
    match value.map(str::trim) {
        Some("1") => Finding::ok("br_netfilter", "traffic between pods of a bridge passes the host's rules"),
        _ => Finding::ok(
            "br_netfilter",
            "off: traffic between pods of a bridge passes no rule (kube-proxy would need it on)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        cni-podman0\t0000580A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn a_subnet_that_is_routed_elsewhere_is_refused() {
        let level = |cidr, own| pod_cidr(cidr, ROUTES, own).level;
        assert_eq!(level("10.88.0.0/16", None), Level::Failure);
        assert_eq!(level("10.88.7.0/24", None), Level::Failure, "inside it");
        assert_eq!(level("10.0.0.0/8", None), Level::Failure, "around it");
        assert_eq!(level("10.88.0.0/16", Some("cni-podman0")), Level::Ok, "our own bridge");
        assert_eq!(level("10.89.0.0/16", None), Level::Ok, "the default route overlaps nothing");
        assert_eq!(level("10.89.0.0", None), Level::Failure);
    }

    #[test]
    fn subnets_are_masked() {
        assert_eq!(parse_cidr("10.88.3.4/16"), Some((0x0a58_0000, 16)));
        assert_eq!(parse_cidr("0.0.0.0/0"), Some((0, 0)));
        assert_eq!(parse_cidr("10.88.0.0/33"), None);
    }
}
