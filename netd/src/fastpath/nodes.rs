//! How each other node is reached: pure, from the peers, the overlay's mode and the kernel's routing answers.
//!
//! Both directions of a flow must pass the programs, so a node is served only when its traffic leaves and enters by
//! the uplink that has `from_nic`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use corten_netlink::route::Mac;
use ipnetwork::IpNetwork;

use crate::net_conf::BackendConf;
use crate::node::{Backend, Node, PublicIps};

/// The kernel's answer to "where does a packet to this address go".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub link: u32,
    /// `None`: the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Of the route or, where that has none, the link.
    pub mtu: u32,
}

/// What a vxlan packet has before its inner IP header: outer IP, UDP, vxlan, inner Ethernet.
const VXLAN_V4_BYTES: u32 = 20 + 8 + 8 + 14;
const VXLAN_V6_BYTES: u32 = 40 + 8 + 8 + 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To the pod's own address as it is, by the next hop.
    Gateway,
    /// In vxlan, to this tunnel device.
    Vxlan { vtep: Mac },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEntry {
    pub mode: Mode,
    pub public_ip: IpAddr,
    pub uplink: u32,
    /// The public address itself, or the router before it.
    pub next_hop: IpAddr,
    /// The longest IP packet of a pod that fits, in bytes.
    pub mtu: u16,
}

/// A peer, in one family, that goes the kernel's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    pub node: String,
    pub pod_cidr: IpNetwork,
    pub why: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoPublicIp,
    NoVtep,
    OtherVni(u32),
    OtherBackend,
    GroupPolicy,
    Checksum,
    Translated,
    NoRoute,
    OtherUplink(u32),
    BehindRouter(IpAddr),
    Overlaps,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPublicIp => f.write_str("it has no public address of this family"),
            Self::NoVtep => f.write_str("it has no tunnel device of this family"),
            Self::OtherVni(vni) => write!(f, "its tunnel has VNI {vni}"),
            Self::OtherBackend => f.write_str("it uses another backend"),
            Self::GroupPolicy => f.write_str("the tunnel carries group policies (GBP)"),
            Self::Translated => f.write_str("the public address of this node is not one of its own (NAT)"),
            Self::Checksum => f.write_str("its kernel may refuse IPv6 vxlan without a UDP checksum"),
            Self::NoRoute => f.write_str("there is no route to its public address"),
            Self::OtherUplink(link) => write!(f, "it is reached by link {link}, not by the uplink"),
            Self::BehindRouter(router) => write!(f, "host-gw cannot reach it behind router {router}"),
            Self::Overlaps => f.write_str("its pod CIDR overlaps another node's"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nodes {
    pub entries: BTreeMap<IpNetwork, NodeEntry>,
    pub unserved: Vec<Unserved>,
}

/// The addresses whose routes [`resolve`] wants to know.
pub fn questions(peers: &[Node]) -> BTreeSet<IpAddr> {
    peers
        .iter()
        .flat_map(|p| [p.public_ips.v4.map(IpAddr::from), p.public_ips.v6.map(IpAddr::from)])
        .flatten()
        .collect()
}

/// This node, as far as reaching others depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    pub backend: BackendConf,
    /// The links that have `from_nic`.
    pub uplinks: BTreeSet<u32>,
    pub pod_cidrs: Vec<IpNetwork>,
    /// All nodes take IPv6 vxlan without a UDP checksum, which the fast path does not compute.
    pub zero_checksum_v6: bool,
    /// Addresses that this node really has.
    pub own: BTreeSet<IpAddr>,
    /// What others are told: packets come to and go from it, so it must be its own.
    pub public_ips: PublicIps,
}

pub fn resolve(peers: &[Node], here: &Here, routes: &BTreeMap<IpAddr, Hop>) -> Nodes {
    let mut nodes = Nodes::default();
    let sides: Vec<Side<'_>> = peers.iter().flat_map(sides).collect();
    let overlapping =
        overlapping(sides.iter().map(|side| side.pod_cidr).chain(here.pod_cidrs.iter().copied()));
    for side in &sides {
        let overlaps = overlapping.contains(&side.pod_cidr);
        match if overlaps { Err(Reason::Overlaps) } else { side.entry(here, routes) } {
            Ok(entry) => {
                nodes.entries.insert(side.pod_cidr, entry);
            }
            Err(why) => {
                let (node, pod_cidr) = (side.node.to_owned(), side.pod_cidr);
                nodes.unserved.push(Unserved { node, pod_cidr, why });
            }
        }
    }
    nodes
}

/// Those that share addresses with another. Networks contain each other or have nothing in common, so in order of
/// their first address it is enough to compare each with the last that was not inside another.
fn overlapping(cidrs: impl Iterator<Item = IpNetwork>) -> BTreeSet<IpNetwork> {
    let mut sorted: Vec<IpNetwork> = cidrs.collect();
    sorted.sort_by_key(|cidr| (cidr.network(), cidr.prefix()));
    let mut found = BTreeSet::new();
    let mut outer: Option<IpNetwork> = None;
    for cidr in sorted {
        match outer {
            Some(outer) if outer.contains(cidr.network()) => found.extend([outer, cidr]),
            _ => outer = Some(cidr),
        }
    }
    found
}

/// A peer in one family.
struct Side<'a> {
    node: &'a str,
    pod_cidr: IpNetwork,
    public_ip: Option<IpAddr>,
    /// The peer's tunnel; `None` with host-gw.
    tunnel: Option<(u32, Option<Mac>)>,
}

fn sides(peer: &Node) -> Vec<Side<'_>> {
    let tunnel = |v6: bool| match peer.backend {
        Backend::HostGw => None,
        Backend::Vxlan { vni, vtep } => Some((vni, if v6 { vtep.v6 } else { vtep.v4 })),
    };
    let v4 = peer.pod_cidrs.v4.map(|cidr| (IpNetwork::V4(cidr), peer.public_ips.v4.map(IpAddr::from), false));
    let v6 = peer.pod_cidrs.v6.map(|cidr| (IpNetwork::V6(cidr), peer.public_ips.v6.map(IpAddr::from), true));
    let side = |(pod_cidr, public_ip, v6)| Side { node: &peer.name, pod_cidr, public_ip, tunnel: tunnel(v6) };
    [v4, v6].into_iter().flatten().map(side).collect()
}

impl Side<'_> {
    fn entry(&self, here: &Here, routes: &BTreeMap<IpAddr, Hop>) -> Result<NodeEntry, Reason> {
        let public_ip = self.public_ip.ok_or(Reason::NoPublicIp)?;
        let local = match public_ip {
            IpAddr::V4(_) => here.public_ips.v4.map(IpAddr::from),
            IpAddr::V6(_) => here.public_ips.v6.map(IpAddr::from),
        };
        if !local.is_some_and(|ip| here.own.contains(&ip)) {
            return Err(Reason::Translated);
        }
        let hop = routes.get(&public_ip).ok_or(Reason::NoRoute)?;
        if !here.uplinks.contains(&hop.link) {
            return Err(Reason::OtherUplink(hop.link));
        }
        let mode = self.mode(here, *hop)?;
        let next_hop = hop.gateway.unwrap_or(public_ip);
        Ok(NodeEntry {
            mode,
            public_ip,
            uplink: hop.link,
            next_hop,
            mtu: mtu(here.backend, mode, public_ip, *hop),
        })
    }

    fn mode(&self, here: &Here, hop: Hop) -> Result<Mode, Reason> {
        match (here.backend, self.tunnel) {
            (BackendConf::HostGw, None) => match hop.gateway {
                None => Ok(Mode::Gateway),
                Some(router) => Err(Reason::BehindRouter(router)),
            },
            (BackendConf::Vxlan(conf), Some(_)) if conf.direct_routing && hop.gateway.is_none() => {
                Ok(Mode::Gateway)
            }
            (BackendConf::Vxlan(conf), Some((vni, _))) if conf.vni != vni => Err(Reason::OtherVni(vni)),
            // The programs write the plain header.
            (BackendConf::Vxlan(conf), Some(_)) if conf.gbp => Err(Reason::GroupPolicy),
            (BackendConf::Vxlan(_), Some(_)) if self.pod_cidr.is_ipv6() && !here.zero_checksum_v6 => {
                Err(Reason::Checksum)
            }
            (BackendConf::Vxlan(_), Some((_, vtep))) => {
                vtep.map(|vtep| Mode::Vxlan { vtep }).ok_or(Reason::NoVtep)
            }
            (BackendConf::HostGw, Some(_)) | (BackendConf::Vxlan(_), None) => Err(Reason::OtherBackend),
        }
    }
}

fn mtu(backend: BackendConf, mode: Mode, public_ip: IpAddr, hop: Hop) -> u16 {
    let inner = match (backend, mode) {
        (BackendConf::Vxlan(conf), Mode::Vxlan { .. }) => {
            let outer = if public_ip.is_ipv4() { VXLAN_V4_BYTES } else { VXLAN_V6_BYTES };
            hop.mtu.min(conf.underlay_mtu.unwrap_or(u32::MAX)).saturating_sub(outer)
        }
        _ => hop.mtu,
    };
    u16::try_from(inner).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net_conf::VxlanConf;
    use crate::node::Dual;

    const VTEP: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn conf(change: impl FnOnce(&mut VxlanConf)) -> BackendConf {
        let mut conf = VxlanConf::default();
        change(&mut conf);
        BackendConf::Vxlan(conf)
    }

    fn plain() -> BackendConf {
        conf(|_| {})
    }

    fn direct() -> BackendConf {
        conf(|c| c.direct_routing = true)
    }

    fn here(backend: BackendConf) -> Here {
        let pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
        let public_ips =
            Dual { v4: Some("192.0.2.1".parse().unwrap()), v6: Some("2001:db8::1".parse().unwrap()) };
        let own = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into();
        Here { backend, uplinks: [3].into(), pod_cidrs, zero_checksum_v6: false, own, public_ips }
    }

    fn peer(backend: Backend) -> Node {
        Node {
            name: "b".into(),
            pod_cidrs: Dual { v4: Some("10.244.2.0/24".parse().unwrap()), v6: None },
            public_ips: Dual { v4: Some("192.0.2.2".parse().unwrap()), v6: None },
            backend,
        }
    }

    fn vxlan(vni: u32) -> Backend {
        Backend::Vxlan { vni, vtep: Dual { v4: Some(VTEP), v6: Some(VTEP) } }
    }

    fn hop(link: u32, gateway: Option<&str>) -> BTreeMap<IpAddr, Hop> {
        let hop = Hop { link, gateway: gateway.map(|g| g.parse().unwrap()), mtu: 1500 };
        BTreeMap::from([("192.0.2.2".parse().unwrap(), hop)])
    }

    fn one(peer: &Node, here: &Here, routes: &BTreeMap<IpAddr, Hop>) -> Result<NodeEntry, Reason> {
        let mut nodes = resolve(std::slice::from_ref(peer), here, routes);
        match nodes.unserved.pop() {
            Some(unserved) => Err(unserved.why),
            None => Ok(nodes.entries.pop_first().expect("an entry").1),
        }
    }

    fn entry(mode: Mode, next_hop: &str) -> NodeEntry {
        let mtu = if mode == Mode::Gateway { 1500 } else { 1450 };
        let (public_ip, next_hop) = ("192.0.2.2".parse().unwrap(), next_hop.parse().unwrap());
        NodeEntry { mode, public_ip, uplink: 3, next_hop, mtu }
    }

    #[test]
    fn the_mode_follows_the_backend_and_the_next_hop_the_kernel() {
        let tunnel = Mode::Vxlan { vtep: VTEP };
        let router = hop(3, Some("192.0.2.254"));
        let behind = Reason::BehindRouter("192.0.2.254".parse().unwrap());
        let no_vtep = Backend::Vxlan { vni: 1, vtep: Dual::default() };
        for (backend, ours, routes, wanted) in [
            (vxlan(1), plain(), hop(3, None), Ok(entry(tunnel, "192.0.2.2"))),
            (vxlan(1), plain(), router.clone(), Ok(entry(tunnel, "192.0.2.254"))),
            (vxlan(1), direct(), hop(3, None), Ok(entry(Mode::Gateway, "192.0.2.2"))),
            (vxlan(1), direct(), router.clone(), Ok(entry(tunnel, "192.0.2.254"))),
            (Backend::HostGw, BackendConf::HostGw, hop(3, None), Ok(entry(Mode::Gateway, "192.0.2.2"))),
            (Backend::HostGw, BackendConf::HostGw, router, Err(behind)),
            (vxlan(2), plain(), hop(3, None), Err(Reason::OtherVni(2))),
            (Backend::HostGw, plain(), hop(3, None), Err(Reason::OtherBackend)),
            (vxlan(1), BackendConf::HostGw, hop(3, None), Err(Reason::OtherBackend)),
            (vxlan(1), plain(), hop(4, None), Err(Reason::OtherUplink(4))),
            (vxlan(1), plain(), BTreeMap::new(), Err(Reason::NoRoute)),
            (no_vtep, plain(), hop(3, None), Err(Reason::NoVtep)),
            (vxlan(1), conf(|c| c.gbp = true), hop(3, None), Err(Reason::GroupPolicy)),
        ] {
            assert_eq!(one(&peer(backend), &here(ours), &routes), wanted, "{backend:?} {ours:?} {routes:?}");
        }
    }

    #[test]
    fn the_mtu_is_that_of_the_path_or_of_the_configured_underlay_less_the_outer_headers() {
        let mtu = |ours, backend| one(&peer(backend), &here(ours), &hop(3, None)).expect("an entry").mtu;
        assert_eq!(mtu(plain(), vxlan(1)), 1450);
        assert_eq!(mtu(conf(|c| c.underlay_mtu = Some(1400)), vxlan(1)), 1350);
        assert_eq!(mtu(conf(|c| c.underlay_mtu = Some(9000)), vxlan(1)), 1450);
        assert_eq!(mtu(BackendConf::HostGw, Backend::HostGw), 1500);
    }

    #[test]
    fn without_a_public_address_of_the_family_a_node_is_not_served() {
        let peer = Node { public_ips: Dual::default(), ..peer(vxlan(1)) };
        assert_eq!(one(&peer, &here(plain()), &BTreeMap::new()), Err(Reason::NoPublicIp));
    }

    #[test]
    fn behind_nat_this_node_serves_nobody() {
        let here = Here { own: BTreeSet::new(), ..here(plain()) };
        assert_eq!(one(&peer(vxlan(1)), &here, &hop(3, None)), Err(Reason::Translated));
    }

    #[test]
    fn overlapping_pod_cidrs_are_nobodys() {
        let twin = Node { name: "c".into(), ..peer(vxlan(1)) };
        let nodes = resolve(&[peer(vxlan(1)), twin], &here(plain()), &hop(3, None));
        assert!(nodes.entries.is_empty());
        assert!(nodes.unserved.iter().all(|u| u.why == Reason::Overlaps), "{nodes:?}");
        let wide = Here { pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()], ..here(plain()) };
        assert_eq!(one(&peer(vxlan(1)), &wide, &hop(3, None)), Err(Reason::Overlaps));
    }

    #[test]
    fn both_families_of_a_node_are_entries_of_their_own() {
        let dual = |backend| {
            let mut peer = peer(backend);
            peer.pod_cidrs.v6 = Some("fd00:2::/64".parse().unwrap());
            peer.public_ips.v6 = Some("2001:db8::2".parse().unwrap());
            peer
        };
        let mut routes = hop(3, None);
        routes.insert("2001:db8::2".parse().unwrap(), Hop { link: 3, gateway: None, mtu: 1500 });
        assert_eq!(questions(&[dual(Backend::HostGw)]).len(), 2);
        let nodes = resolve(&[dual(Backend::HostGw)], &here(BackendConf::HostGw), &routes);
        assert_eq!((nodes.entries.len(), nodes.unserved.len()), (2, 0));
        let nodes = resolve(&[dual(vxlan(1))], &here(plain()), &routes);
        assert_eq!((nodes.entries.len(), nodes.unserved[0].why), (1, Reason::Checksum));
        let accepting = Here { zero_checksum_v6: true, ..here(plain()) };
        let nodes = resolve(&[dual(vxlan(1))], &accepting, &routes);
        assert_eq!(nodes.entries.values().map(|e| e.mtu).collect::<Vec<_>>(), [1450, 1430]);
    }
}
