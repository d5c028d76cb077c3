//! How each other node is reached: pure, from the peers, the overlay's mode and the kernel's routing answers.
//!
//! Both directions of a flow must pass the programs, so a node is served only when its traffic leaves and enters by
//! the uplink that has `from_nic`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use corten_netlink::route::Mac;
use ipnetwork::IpNetwork;

use crate::node::{Backend, Node};

/// How the overlay of this node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    HostGw,
    Vxlan {
        vni: u32,
        /// UDP, of both ends.
        port: u16,
        /// A node on the same layer 2 is reached by a plain route.
        direct_routing: bool,
    },
}

/// The kernel's answer to "where does a packet to this address go".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub link: u32,
    /// `None`: the address is on the link itself.
    pub gateway: Option<IpAddr>,
}

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

/// `uplinks`: the links that have `from_nic`. `local`: this node's own pod CIDRs.
pub fn resolve(
    peers: &[Node],
    overlay: Overlay,
    uplinks: &BTreeSet<u32>,
    local: &[IpNetwork],
    routes: &BTreeMap<IpAddr, Hop>,
) -> Nodes {
    let mut nodes = Nodes::default();
    let sides: Vec<Side<'_>> = peers.iter().flat_map(sides).collect();
    let overlapping = overlapping(sides.iter().map(|side| side.pod_cidr).chain(local.iter().copied()));
    for side in &sides {
        let overlaps = overlapping.contains(&side.pod_cidr);
        match if overlaps { Err(Reason::Overlaps) } else { side.entry(overlay, uplinks, routes) } {
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
    fn entry(
        &self,
        overlay: Overlay,
        uplinks: &BTreeSet<u32>,
        routes: &BTreeMap<IpAddr, Hop>,
    ) -> Result<NodeEntry, Reason> {
        let public_ip = self.public_ip.ok_or(Reason::NoPublicIp)?;
        let hop = routes.get(&public_ip).ok_or(Reason::NoRoute)?;
        if !uplinks.contains(&hop.link) {
            return Err(Reason::OtherUplink(hop.link));
        }
        let mode = self.mode(overlay, *hop)?;
        Ok(NodeEntry { mode, public_ip, uplink: hop.link, next_hop: hop.gateway.unwrap_or(public_ip) })
    }

    fn mode(&self, overlay: Overlay, hop: Hop) -> Result<Mode, Reason> {
        match (overlay, self.tunnel) {
            (Overlay::HostGw, None) => match hop.gateway {
                None => Ok(Mode::Gateway),
                Some(router) => Err(Reason::BehindRouter(router)),
            },
            (Overlay::Vxlan { direct_routing: true, .. }, Some(_)) if hop.gateway.is_none() => {
                Ok(Mode::Gateway)
            }
            (Overlay::Vxlan { vni, .. }, Some((theirs, _))) if vni != theirs => Err(Reason::OtherVni(theirs)),
            (Overlay::Vxlan { .. }, Some((_, vtep))) => {
                vtep.map(|vtep| Mode::Vxlan { vtep }).ok_or(Reason::NoVtep)
            }
            (Overlay::HostGw, Some(_)) | (Overlay::Vxlan { .. }, None) => Err(Reason::OtherBackend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Dual;

    const VTEP: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const VXLAN: Overlay = Overlay::Vxlan { vni: 1, port: 8472, direct_routing: false };
    const DIRECT: Overlay = Overlay::Vxlan { vni: 1, port: 8472, direct_routing: true };

    fn peer(backend: Backend) -> Node {
        Node {
            name: "b".into(),
            pod_cidrs: Dual { v4: Some("10.244.2.0/24".parse().unwrap()), v6: None },
            public_ips: Dual { v4: Some("192.0.2.2".parse().unwrap()), v6: None },
            backend,
        }
    }

    fn vxlan(vni: u32) -> Backend {
        Backend::Vxlan { vni, vtep: Dual { v4: Some(VTEP), v6: None } }
    }

    fn hop(link: u32, gateway: Option<&str>) -> BTreeMap<IpAddr, Hop> {
        let hop = Hop { link, gateway: gateway.map(|g| g.parse().unwrap()) };
        BTreeMap::from([("192.0.2.2".parse().unwrap(), hop)])
    }

    fn one(peer: &Node, overlay: Overlay, routes: &BTreeMap<IpAddr, Hop>) -> Result<NodeEntry, Reason> {
        let local = ["10.244.1.0/24".parse().unwrap()];
        let mut nodes = resolve(std::slice::from_ref(peer), overlay, &BTreeSet::from([3]), &local, routes);
        match nodes.unserved.pop() {
            Some(unserved) => Err(unserved.why),
            None => Ok(nodes.entries.pop_first().expect("an entry").1),
        }
    }

    fn entry(mode: Mode, next_hop: &str) -> NodeEntry {
        NodeEntry {
            mode,
            public_ip: "192.0.2.2".parse().unwrap(),
            uplink: 3,
            next_hop: next_hop.parse().unwrap(),
        }
    }

    #[test]
    fn the_mode_follows_the_backend_and_the_next_hop_the_kernel() {
        let tunnel = Mode::Vxlan { vtep: VTEP };
        let router = hop(3, Some("192.0.2.254"));
        for (backend, overlay, routes, wanted) in [
            (vxlan(1), VXLAN, hop(3, None), Ok(entry(tunnel, "192.0.2.2"))),
            (vxlan(1), VXLAN, router.clone(), Ok(entry(tunnel, "192.0.2.254"))),
            (vxlan(1), DIRECT, hop(3, None), Ok(entry(Mode::Gateway, "192.0.2.2"))),
            (vxlan(1), DIRECT, router.clone(), Ok(entry(tunnel, "192.0.2.254"))),
            (Backend::HostGw, Overlay::HostGw, hop(3, None), Ok(entry(Mode::Gateway, "192.0.2.2"))),
            (
                Backend::HostGw,
                Overlay::HostGw,
                router,
                Err(Reason::BehindRouter("192.0.2.254".parse().unwrap())),
            ),
            (vxlan(2), VXLAN, hop(3, None), Err(Reason::OtherVni(2))),
            (Backend::HostGw, VXLAN, hop(3, None), Err(Reason::OtherBackend)),
            (vxlan(1), Overlay::HostGw, hop(3, None), Err(Reason::OtherBackend)),
            (vxlan(1), VXLAN, hop(4, None), Err(Reason::OtherUplink(4))),
            (vxlan(1), VXLAN, BTreeMap::new(), Err(Reason::NoRoute)),
            (Backend::Vxlan { vni: 1, vtep: Dual::default() }, VXLAN, hop(3, None), Err(Reason::NoVtep)),
        ] {
            assert_eq!(one(&peer(backend), overlay, &routes), wanted, "{backend:?} {overlay:?} {routes:?}");
        }
    }

    #[test]
    fn without_a_public_address_of_the_family_a_node_is_not_served() {
        let peer = Node { public_ips: Dual::default(), ..peer(vxlan(1)) };
        assert_eq!(one(&peer, VXLAN, &BTreeMap::new()), Err(Reason::NoPublicIp));
    }

    #[test]
    fn overlapping_pod_cidrs_are_nobodys() {
        let twin = Node { name: "c".into(), ..peer(vxlan(1)) };
        let nodes = resolve(&[peer(vxlan(1)), twin], VXLAN, &BTreeSet::from([3]), &[], &hop(3, None));
        assert!(nodes.entries.is_empty());
        assert!(nodes.unserved.iter().all(|u| u.why == Reason::Overlaps), "{nodes:?}");
        let ours = ["10.244.0.0/16".parse().unwrap()];
        let nodes = resolve(&[peer(vxlan(1))], VXLAN, &BTreeSet::from([3]), &ours, &hop(3, None));
        assert_eq!(nodes.unserved[0].why, Reason::Overlaps);
    }

    #[test]
    fn both_families_of_a_node_are_entries_of_their_own() {
        let mut peer = peer(Backend::HostGw);
        peer.pod_cidrs.v6 = Some("fd00:2::/64".parse().unwrap());
        peer.public_ips.v6 = Some("2001:db8::2".parse().unwrap());
        let mut routes = hop(3, None);
        routes.insert("2001:db8::2".parse().unwrap(), Hop { link: 3, gateway: None });
        assert_eq!(questions(std::slice::from_ref(&peer)).len(), 2);
        let nodes = resolve(&[peer], Overlay::HostGw, &BTreeSet::from([3]), &[], &routes);
        assert_eq!((nodes.entries.len(), nodes.unserved.len()), (2, 0));
    }
}
