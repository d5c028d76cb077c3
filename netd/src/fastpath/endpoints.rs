//! Which pods of this node the fast path may serve: pure, from what [`super::discovery`] read.
//!
//! A pod is a veth that is a port of the CNI bridge and has its other end in another network namespace. Whose plugin
//! made it does not matter. What cannot be said with certainty (an address two veths claim, a port the bridge itself
//! restricts) is left to the kernel's way, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use corten_netlink::route::Mac;

use crate::node::PodCidrs;

/// More is no plugin's doing: a pod that may change its own addresses could fill the maps, which all pods share.
const MAX_ADDRESSES: usize = 64;

/// The CNI bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub index: u32,
    /// What pods have as their gateway's MAC.
    pub mac: Mac,
    /// Ports belong to VLANs, which the fast path knows nothing of.
    pub vlan_filtering: bool,
}

/// A port of the bridge and what is at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub index: u32,
    pub name: String,
    /// `portIsolation` of the bridge plugin: no frames to other isolated ports.
    pub isolated: bool,
    /// A queueing discipline other than the kernel's default for a veth: the bandwidth plugin's tbf or ingress.
    pub queueing: Option<String>,
    pub far_end: FarEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarEnd {
    /// Not a veth: its kind (`None` for hardware).
    NotVeth(Option<String>),
    /// A veth whose peer is in this namespace.
    SameNamespace,
    /// The namespace or the device went while we looked; the notification of that is on its way.
    Gone,
    Pod {
        mac: Mac,
        addresses: Vec<PodAddress>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: IpAddr,
    /// Duplicate address detection is over and found nobody.
    pub usable: bool,
}

/// What the programs need to deliver to a local pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's end of the pod's veth.
    pub veth: u32,
    pub mac: Mac,
    /// The bridge's: source of what the fast path delivers, as the kernel would have it.
    pub gateway_mac: Mac,
}

/// A pod, or one address of it, that goes the kernel's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub veth: String,
    pub address: Option<IpAddr>,
    pub why: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    VlanFiltering,
    Isolated,
    Queueing(String),
    NoAddress,
    TooManyAddresses(usize),
    OutsidePodCidr,
    Claimed { by: Vec<String> },
    HostAddress,
    Tentative,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VlanFiltering => f.write_str("the bridge filters VLANs"),
            Self::Isolated => f.write_str("the bridge port is isolated"),
            Self::Queueing(kind) => write!(f, "its traffic is shaped ({kind})"),
            Self::NoAddress => f.write_str("it has no address yet"),
            Self::TooManyAddresses(count) => {
                write!(f, "it has {count} addresses, of which {MAX_ADDRESSES} would be believed")
            }
            Self::OutsidePodCidr => f.write_str("the address is outside this node's pod CIDR"),
            Self::Claimed { by } => write!(f, "the address is claimed by {} too", by.join(", ")),
            Self::HostAddress => f.write_str("the address is one of this node's own"),
            Self::Tentative => f.write_str("duplicate address detection is not over, or found another owner"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    pub left_out: Vec<LeftOut>,
}

impl Resolved {
    /// The veths that need a program: those with an endpoint.
    pub fn veths(&self) -> BTreeSet<u32> {
        self.endpoints.values().map(|e| e.veth).collect()
    }
}

/// `host`: the addresses of this node's own namespace, among them the bridge's.
pub fn resolve(bridge: &Bridge, ports: &[Port], cidrs: &PodCidrs, host: &BTreeSet<IpAddr>) -> Resolved {
    let mut resolved = Resolved::default();
    let claims = claims(ports);
    for port in ports {
        let FarEnd::Pod { mac, addresses } = &port.far_end else { continue };
        let left_out = |address, why| LeftOut { veth: port.name.clone(), address, why };
        if let Some(why) = unfit(bridge, port, addresses) {
            resolved.left_out.push(left_out(None, why));
            continue;
        }
        for address in addresses.iter().filter(|a| !is_link_local(a.ip)) {
            if let Some(why) = refusal(port, *address, cidrs, host, &claims) {
                resolved.left_out.push(left_out(Some(address.ip), why));
                continue;
            }
            let endpoint = Endpoint { veth: port.index, mac: *mac, gateway_mac: bridge.mac };
            resolved.endpoints.insert(address.ip, endpoint);
        }
    }
    resolved
}

/// Address → the ports whose far end has it. One that claims everything claims nothing.
fn claims(ports: &[Port]) -> BTreeMap<IpAddr, Vec<&Port>> {
    let mut claims: BTreeMap<IpAddr, Vec<&Port>> = BTreeMap::new();
    for port in ports {
        let FarEnd::Pod { addresses, .. } = &port.far_end else { continue };
        if addresses.len() > MAX_ADDRESSES {
            continue;
        }
        for address in addresses {
            let owners = claims.entry(address.ip).or_default();
            if owners.last().is_none_or(|last| last.index != port.index) {
                owners.push(port);
            }
        }
    }
    claims
}

/// Why nothing of this pod may be served.
fn unfit(bridge: &Bridge, port: &Port, addresses: &[PodAddress]) -> Option<Reason> {
    if bridge.vlan_filtering {
        return Some(Reason::VlanFiltering);
    }
    if port.isolated {
        return Some(Reason::Isolated);
    }
    if let Some(kind) = &port.queueing {
        return Some(Reason::Queueing(kind.clone()));
    }
    if addresses.len() > MAX_ADDRESSES {
        return Some(Reason::TooManyAddresses(addresses.len()));
    }
    addresses.iter().all(|a| is_link_local(a.ip)).then_some(Reason::NoAddress)
}

/// Why this address may not be served.
fn refusal(
    port: &Port,
    address: PodAddress,
    cidrs: &PodCidrs,
    host: &BTreeSet<IpAddr>,
    claims: &BTreeMap<IpAddr, Vec<&Port>>,
) -> Option<Reason> {
    let ours = match address.ip {
        IpAddr::V4(ip) => cidrs.v4.is_some_and(|c| c.contains(ip)),
        IpAddr::V6(ip) => cidrs.v6.is_some_and(|c| c.contains(ip)),
    };
    if !ours {
        return Some(Reason::OutsidePodCidr);
    }
    if host.contains(&address.ip) {
        return Some(Reason::HostAddress);
    }
    let others = claims.get(&address.ip).into_iter().flatten().filter(|p| p.index != port.index);
    let by: Vec<String> = others.map(|p| p.name.clone()).collect();
    if !by.is_empty() {
        return Some(Reason::Claimed { by });
    }
    (!address.usable).then_some(Reason::Tentative)
}

/// Every IPv6 device has one; it never leaves the bridge.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE_MAC: Mac = Mac([0x0a, 0x58, 0, 0, 0, 1]);

    fn bridge() -> Bridge {
        Bridge { index: 2, mac: BRIDGE_MAC, vlan_filtering: false }
    }

    fn pod(index: u32, addresses: &[&str]) -> Port {
        let addresses =
            addresses.iter().map(|a| PodAddress { ip: a.parse().unwrap(), usable: true }).collect();
        Port {
            index,
            name: format!("veth{index}"),
            isolated: false,
            queueing: None,
            far_end: FarEnd::Pod { mac: mac(index), addresses },
        }
    }

    fn mac(index: u32) -> Mac {
        Mac([2, 0, 0, 0, 0, index as u8])
    }

    fn cidrs() -> PodCidrs {
        PodCidrs { v4: Some("10.244.1.0/24".parse().unwrap()), v6: Some("fd00:1::/64".parse().unwrap()) }
    }

    fn resolved(ports: &[Port]) -> Resolved {
        resolve(&bridge(), ports, &cidrs(), &BTreeSet::from(["10.244.1.1".parse().unwrap()]))
    }

    fn reasons(ports: &[Port]) -> Vec<(String, Option<String>, String)> {
        let text = |l: LeftOut| (l.veth, l.address.map(|a| a.to_string()), l.why.to_string());
        resolved(ports).left_out.into_iter().map(text).collect()
    }

    #[test]
    fn a_pod_is_served_at_each_of_its_addresses_but_not_the_link_local() {
        let got = resolved(&[pod(5, &["10.244.1.7", "fd00:1::7", "fe80::1"])]);
        let endpoint = Endpoint { veth: 5, mac: mac(5), gateway_mac: BRIDGE_MAC };
        let wanted = ["10.244.1.7", "fd00:1::7"].map(|a| (a.parse().unwrap(), endpoint));
        assert_eq!(got, Resolved { endpoints: wanted.into(), left_out: vec![] });
        assert_eq!(got.veths(), BTreeSet::from([5]));
    }

    #[test]
    fn an_address_that_two_veths_claim_is_nobodys_and_the_rest_of_the_pod_stays() {
        let got = resolved(&[pod(5, &["10.244.1.7", "fd00:1::7"]), pod(6, &["10.244.1.7"])]);
        assert_eq!(got.endpoints.keys().map(ToString::to_string).collect::<Vec<_>>(), ["fd00:1::7"]);
        let claimed: Vec<_> = got.left_out.iter().map(|l| (l.veth.as_str(), l.why.to_string())).collect();
        assert_eq!(
            claimed,
            [
                ("veth5", "the address is claimed by veth6 too".into()),
                ("veth6", "the address is claimed by veth5 too".into())
            ]
        );
    }

    #[test]
    fn a_pod_that_claims_the_whole_range_takes_nobody_off_the_fast_path() {
        let greedy: Vec<String> = (2..=254).map(|i| format!("10.244.1.{i}")).collect();
        let greedy: Vec<&str> = greedy.iter().map(String::as_str).collect();
        let got = resolved(&[pod(5, &["10.244.1.7"]), pod(6, &greedy)]);
        assert_eq!(got.veths(), BTreeSet::from([5]));
        let why: Vec<_> = got.left_out.iter().map(|l| (l.veth.as_str(), l.why.to_string())).collect();
        assert_eq!(why, [("veth6", "it has 253 addresses, of which 64 would be believed".into())]);
    }

    #[test]
    fn one_device_with_an_address_twice_claims_it_once() {
        assert_eq!(resolved(&[pod(5, &["10.244.1.7", "10.244.1.7"])]).left_out, []);
    }

    #[test]
    fn ports_that_are_not_pods_are_passed_over_in_silence() {
        for far_end in [FarEnd::NotVeth(None), FarEnd::SameNamespace, FarEnd::Gone] {
            assert_eq!(resolved(&[Port { far_end, ..pod(5, &[]) }]), Resolved::default());
        }
    }

    #[test]
    fn who_is_left_out_is_told_why() {
        let plain = pod(5, &["10.244.1.7"]);
        let tentative = FarEnd::Pod {
            mac: mac(5),
            addresses: vec![PodAddress { ip: "fd00:1::7".parse().unwrap(), usable: false }],
        };
        for (port, address, why) in [
            (pod(5, &["fe80::1"]), None, "it has no address yet"),
            (pod(5, &["10.9.9.9"]), Some("10.9.9.9"), "the address is outside this node's pod CIDR"),
            (pod(5, &["10.244.1.1"]), Some("10.244.1.1"), "the address is one of this node's own"),
            (Port { isolated: true, ..plain.clone() }, None, "the bridge port is isolated"),
            (Port { queueing: Some("tbf".into()), ..plain.clone() }, None, "its traffic is shaped (tbf)"),
            (
                Port { far_end: tentative, ..plain.clone() },
                Some("fd00:1::7"),
                "duplicate address detection is not over, or found another owner",
            ),
        ] {
            let wanted = vec![("veth5".to_owned(), address.map(str::to_owned), why.to_owned())];
            assert_eq!(reasons(&[port]), wanted);
        }
        let bridge = Bridge { vlan_filtering: true, ..bridge() };
        let got = resolve(&bridge, &[plain], &cidrs(), &BTreeSet::new());
        assert_eq!((got.endpoints.len(), &got.left_out[0].why), (0, &Reason::VlanFiltering));
    }

    #[test]
    fn a_family_the_node_has_no_range_of_is_not_served() {
        let cidrs = PodCidrs { v6: None, ..cidrs() };
        let got = resolve(&bridge(), &[pod(5, &["10.244.1.7", "fd00:1::7"])], &cidrs, &BTreeSet::new());
        assert_eq!((got.endpoints.len(), &got.left_out[0].why), (1, &Reason::OutsidePodCidr));
    }
}
