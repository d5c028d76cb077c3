//! Which nodes of a list become peers. Pure.
//!
//! A node list is written by others, by hand or by a controller gone wrong. Two nodes with one pod CIDR would steal each
//! other's traffic at random, so who has it keeps it: this node first, then the peers of the last snapshot, then by
//! name. The newcomer is left out, and said.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::route::Mac;
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::{LeftOut, Snapshot};
use crate::net_conf::{BackendConf, NetConf};
use crate::node::{Backend, Dual, Node};

/// What is needed to send to the pods of a node, in one family.
struct Family<Net, Address> {
    cidr: Net,
    public: Address,
    /// vxlan only.
    vtep: Option<Mac>,
}

/// [`admit`] for a source whose entries may make no sense: each is a node, or its name and why it is none.
pub fn admit_found(
    conf: &NetConf,
    local: Node,
    previous: Option<&Snapshot>,
    found: impl IntoIterator<Item = Result<Node, LeftOut>>,
) -> Snapshot {
    let mut nodes = Vec::new();
    let mut senseless = Vec::new();
    for entry in found {
        match entry {
            Ok(node) => nodes.push(node),
            Err(left) => senseless.push(left),
        }
    }
    let mut snapshot = admit(conf, local, previous, nodes);
    snapshot.left_out.extend(senseless);
    snapshot.left_out.sort();
    snapshot
}

/// Sorts `listed` into peers and those left out. `previous` is the snapshot before; `listed` may contain the local node,
/// which is passed over by its name.
pub fn admit(conf: &NetConf, local: Node, previous: Option<&Snapshot>, listed: Vec<Node>) -> Snapshot {
    let known: HashMap<&str, &Node> =
        previous.iter().flat_map(|p| &p.peers).map(|peer| (peer.name.as_str(), peer)).collect();
    let mut taken = Taken::default();
    taken.claim(&local);
    let mut newcomers = Vec::new();
    let mut holders = Vec::new();
    for node in listed.into_iter().filter(|node| node.name != local.name) {
        match known.get(node.name.as_str()) {
            Some(before) if before.pod_cidrs == node.pod_cidrs => holders.push(node),
            _ => newcomers.push(node),
        }
    }
    newcomers.sort_by(|a, b| a.name.cmp(&b.name));
    let mut snapshot = Snapshot { local, peers: Vec::new(), left_out: Vec::new(), fault: None };
    for node in holders.into_iter().chain(newcomers) {
        let name = node.name.clone();
        let mut leave_out = |why: String| snapshot.left_out.push(LeftOut::new(&name, &why));
        let Some(node) = usable(conf, node, &mut leave_out) else { continue };
        if let Some(why) = taken.conflict(&node) {
            leave_out(why);
        } else {
            taken.claim(&node);
            snapshot.peers.push(node);
        }
    }
    snapshot.peers.sort_by(|a, b| a.name.cmp(&b.name));
    snapshot.left_out.sort();
    snapshot
}

/// `node` with those families alone that it and the network can use; `None` when none is left.
fn usable(conf: &NetConf, node: Node, leave_out: &mut impl FnMut(String)) -> Option<Node> {
    match (node.backend, &conf.backend) {
        (Backend::HostGw, BackendConf::HostGw) => {}
        (Backend::Vxlan { vni, .. }, BackendConf::Vxlan(ours)) if vni == ours.vni => {}
        (Backend::Vxlan { vni, .. }, BackendConf::Vxlan(ours)) => {
            leave_out(format!("its VNI is {vni}, ours is {}", ours.vni));
            return None;
        }
        (Backend::Vxlan { .. }, ours) => {
            leave_out(format!("its backend is vxlan, ours is {}", ours.name()));
            return None;
        }
        (Backend::HostGw, ours) => {
            leave_out(format!("its backend is host-gw, ours is {}", ours.name()));
            return None;
        }
    }
    let v4 = conf.networks.v4.map(|network| {
        family(
            "IPv4",
            &node.name,
            node.pod_cidrs.v4.map(|cidr| (cidr, within_v4(network, cidr))),
            node.public_ips.v4,
            |cidr, ip| cidr.contains(ip),
            Vtep::of(node.backend, |vtep| vtep.v4),
            &network,
        )
    });
    let v6 = conf.networks.v6.map(|network| {
        family(
            "IPv6",
            &node.name,
            node.pod_cidrs.v6.map(|cidr| (cidr, within_v6(network, cidr))),
            node.public_ips.v6,
            |cidr, ip| cidr.contains(ip),
            Vtep::of(node.backend, |vtep| vtep.v6),
            &network,
        )
    });
    let mut keep_v4 = None;
    let mut keep_v6 = None;
    match v4 {
        Some(Ok(family)) => keep_v4 = Some(family),
        Some(Err(why)) => leave_out(why),
        None => {}
    }
    match v6 {
        Some(Ok(family)) => keep_v6 = Some(family),
        Some(Err(why)) => leave_out(why),
        None => {}
    }
    if keep_v4.is_none() && keep_v6.is_none() {
        return None;
    }
    Some(assemble(node, keep_v4, keep_v6))
}

fn assemble(
    node: Node,
    v4: Option<Family<Ipv4Network, Ipv4Addr>>,
    v6: Option<Family<Ipv6Network, Ipv6Addr>>,
) -> Node {
    let backend = match node.backend {
        Backend::HostGw => Backend::HostGw,
        Backend::Vxlan { vni, .. } => Backend::Vxlan {
            vni,
            vtep: Dual { v4: v4.as_ref().and_then(|f| f.vtep), v6: v6.as_ref().and_then(|f| f.vtep) },
        },
    };
    Node {
        name: node.name,
        pod_cidrs: Dual { v4: v4.as_ref().map(|f| f.cidr), v6: v6.as_ref().map(|f| f.cidr) },
        public_ips: Dual { v4: v4.as_ref().map(|f| f.public), v6: v6.as_ref().map(|f| f.public) },
        backend,
    }
}

/// The MAC of a tunnel device.
#[derive(Clone, Copy)]
enum Vtep {
    /// host-gw has none.
    Needless,
    Missing,
    Told(Mac),
}

impl Vtep {
    fn of(backend: Backend, mac: impl Fn(Dual<Mac, Mac>) -> Option<Mac>) -> Self {
        match backend {
            Backend::HostGw => Self::Needless,
            Backend::Vxlan { vtep, .. } => mac(vtep).map_or(Self::Missing, Self::Told),
        }
    }
}

/// One family of a node, or what it lacks. `holds`: whether the range holds the address.
fn family<Net: Display + Copy, Address: Display + Copy + Into<IpAddr>>(
    family: &str,
    node: &str,
    cidr: Option<(Net, bool)>,
    public: Option<Address>,
    holds: fn(Net, Address) -> bool,
    vtep: Vtep,
    network: &dyn Display,
) -> Result<Family<Net, Address>, String> {
    let (cidr, within) = cidr.ok_or_else(|| format!("node {node} has no {family} pod CIDR"))?;
    if !within {
        return Err(format!("{family} pod CIDR {cidr} is not inside the network {network}"));
    }
    let public = public.ok_or_else(|| format!("node {node} has no public {family} address"))?;
    if !is_of_one_host(public.into()) {
        return Err(format!("its public {family} address {public} is not one that a host can have"));
    }
    if holds(cidr, public) {
        return Err(format!(
            "its public {family} address {public} is inside its own pod CIDR {cidr}: a loop"
        ));
    }
    let vtep = match vtep {
        Vtep::Told(mac) if mac.0[0] & 1 != 0 || mac.0 == [0; 6] => {
            return Err(format!("its {family} tunnel device's MAC {mac} is not one that a device can have"));
        }
        Vtep::Missing => return Err(format!("node {node} has told no MAC of its {family} tunnel device")),
        Vtep::Told(mac) => Some(mac),
        Vtep::Needless => None,
    };
    Ok(Family { cidr, public, vtep })
}

/// What another node says of itself may be anything.
fn is_of_one_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast)
}

/// True when all of `cidr` lies in `network`.
pub fn within_v4(network: Ipv4Network, cidr: Ipv4Network) -> bool {
    network.prefix() <= cidr.prefix() && network.contains(cidr.network())
}

/// True when all of `cidr` lies in `network`.
pub fn within_v6(network: Ipv6Network, cidr: Ipv6Network) -> bool {
    network.prefix() <= cidr.prefix() && network.contains(cidr.network())
}

/// Who has which range and which MAC. Admitted ranges are disjoint, so in order of their beginnings each end lies
/// before the next beginning, and one range meets at most its neighbours: n nodes cost n log n.
#[derive(Default)]
struct Taken {
    v4: BTreeMap<u128, (u128, Owner)>,
    v6: BTreeMap<u128, (u128, Owner)>,
    /// By address bytes.
    macs: HashMap<[u8; 6], String>,
}

#[derive(Clone)]
struct Owner {
    cidr: String,
    node: String,
}

impl Taken {
    fn claim(&mut self, node: &Node) {
        for (ranges, range) in [(&mut self.v4, span_v4(node)), (&mut self.v6, span_v6(node))] {
            if let Some((first, last, cidr)) = range {
                ranges.insert(first, (last, Owner { cidr, node: node.name.clone() }));
            }
        }
        for mac in macs(node) {
            self.macs.insert(mac.0, node.name.clone());
        }
    }

    /// Why `node` cannot be had beside those before it.
    fn conflict(&self, node: &Node) -> Option<String> {
        for (ranges, range) in [(&self.v4, span_v4(node)), (&self.v6, span_v6(node))] {
            let Some((first, last, cidr)) = range else { continue };
            // The last one that begins at or before our end is the only one that can reach into us.
            if let Some((_, (end, owner))) = ranges.range(..=last).next_back()
                && *end >= first
            {
                return Some(format!(
                    "its pod CIDR {cidr} overlaps {} of node {}; give one of them another",
                    owner.cidr, owner.node
                ));
            }
        }
        macs(node).find_map(|mac| {
            let other = self.macs.get(&mac.0)?;
            Some(format!("its tunnel device has the MAC of node {other}'s ({mac}): is one a clone?"))
        })
    }
}

fn macs(node: &Node) -> impl Iterator<Item = Mac> {
    let vtep = match node.backend {
        Backend::HostGw => Dual::default(),
        Backend::Vxlan { vtep, .. } => vtep,
    };
    // Both tunnel devices of one node may share one.
    vtep.v4.into_iter().chain(vtep.v6)
}

fn span_v4(node: &Node) -> Option<(u128, u128, String)> {
    let cidr = node.pod_cidrs.v4?;
    Some((u32::from(cidr.network()).into(), u32::from(cidr.broadcast()).into(), cidr.to_string()))
}

fn span_v6(node: &Node) -> Option<(u128, u128, String)> {
    let cidr = node.pod_cidrs.v6?;
    Some((cidr.network().into(), cidr.broadcast().into(), cidr.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> NetConf {
        r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd44::/48",
            "Backend": {"Type": "vxlan"}}"#
            .parse()
            .unwrap()
    }

    fn node(name: &str, third: u8) -> Node {
        Node {
            name: name.into(),
            pod_cidrs: Dual {
                v4: Some(format!("10.244.{third}.0/24").parse().unwrap()),
                v6: Some(format!("fd44:0:0:{third}::/64").parse().unwrap()),
            },
            public_ips: Dual {
                v4: Some(Ipv4Addr::new(192, 0, 2, third)),
                v6: Some(format!("fd00::{third}").parse().unwrap()),
            },
            backend: Backend::Vxlan {
                vni: 1,
                vtep: Dual { v4: Some(Mac([2, 4, 0, 0, 0, third])), v6: Some(Mac([2, 6, 0, 0, 0, third])) },
            },
        }
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.peers.iter().map(|peer| peer.name.as_str()).collect()
    }

    #[test]
    fn others_are_peers_by_name_and_the_local_node_is_none() {
        let snapshot = admit(&conf(), node("b", 2), None, vec![node("c", 3), node("b", 9), node("a", 1)]);
        assert_eq!(names(&snapshot), ["a", "c"]);
        assert_eq!(snapshot.local, node("b", 2));
        assert!(snapshot.left_out.is_empty() && snapshot.fault.is_none());
    }

    #[test]
    fn of_two_with_one_pod_cidr_the_first_by_name_is_kept_and_both_are_named() {
        let snapshot = admit(&conf(), node("x", 2), None, vec![node("c", 3), node("a", 3)]);
        assert_eq!(names(&snapshot), ["a"]);
        assert_eq!(snapshot.left_out.len(), 1);
        let LeftOut { node, why } = &snapshot.left_out[0];
        assert_eq!(node, "c");
        assert!(why.contains("10.244.3.0/24 overlaps 10.244.3.0/24 of node a"), "{why}");
    }

    #[test]
    fn who_had_a_pod_cidr_before_keeps_it_against_an_earlier_name() {
        let first = admit(&conf(), node("x", 2), None, vec![node("c", 3)]);
        let second = admit(&conf(), node("x", 2), Some(&first), vec![node("a", 3), node("c", 3)]);
        assert_eq!(names(&second), ["c"]);
        let third = admit(&conf(), node("x", 2), Some(&second), vec![node("a", 3)]);
        assert_eq!(names(&third), ["a"], "free again once its holder is gone");
    }

    #[test]
    fn a_holder_that_moves_onto_another_is_the_newcomer() {
        let first = admit(&conf(), node("x", 2), None, vec![node("a", 1), node("c", 3)]);
        let second = admit(&conf(), node("x", 2), Some(&first), vec![node("a", 3), node("c", 3)]);
        assert_eq!(names(&second), ["c"]);
    }

    #[test]
    fn nobody_takes_the_pod_cidr_of_this_node_nor_contains_it() {
        let mut wide = node("a", 7);
        wide.pod_cidrs.v4 = Some("10.244.0.0/20".parse().unwrap());
        let mut inner = node("c", 8);
        inner.pod_cidrs.v4 = Some("10.244.2.128/25".parse().unwrap());
        let snapshot = admit(&conf(), node("x", 2), None, vec![wide, inner, node("d", 4)]);
        assert_eq!(names(&snapshot), ["d"]);
        for left in &snapshot.left_out {
            assert!(left.why.contains("overlaps 10.244.2.0/24 of node x"), "{left:?}");
        }
    }

    #[test]
    fn a_clone_of_a_tunnel_device_is_left_out() {
        let mut clone = node("c", 3);
        clone.backend = node("a", 1).backend;
        let snapshot = admit(&conf(), node("x", 2), None, vec![node("a", 1), clone]);
        assert_eq!(names(&snapshot), ["a"]);
        assert!(snapshot.left_out[0].why.contains("MAC of node a's"), "{:?}", snapshot.left_out);
    }

    #[test]
    fn a_node_lacks_a_family_and_keeps_the_other() {
        let mut only_v4 = node("a", 1);
        only_v4.pod_cidrs.v6 = None;
        let mut outside = node("b", 3);
        outside.pod_cidrs.v4 = Some("10.9.3.0/24".parse().unwrap());
        let mut mute = node("c", 4);
        mute.backend = Backend::Vxlan { vni: 1, vtep: Dual { v4: None, v6: Some(Mac([2, 6, 0, 0, 0, 4])) } };
        let snapshot = admit(&conf(), node("x", 2), None, vec![only_v4, outside, mute]);
        let families: Vec<_> =
            snapshot.peers.iter().map(|p| (p.pod_cidrs.v4.is_some(), p.public_ips.v6.is_some())).collect();
        assert_eq!(families, [(true, false), (false, true), (false, true)]);
        let whys: Vec<_> = snapshot.left_out.iter().map(|l| l.why.as_str()).collect();
        assert_eq!(
            whys,
            [
                "node a has no IPv6 pod CIDR",
                "IPv4 pod CIDR 10.9.3.0/24 is not inside the network 10.244.0.0/16",
                "node c has told no MAC of its IPv4 tunnel device"
            ]
        );
    }

    #[test]
    fn addresses_that_no_node_can_have_are_left_out() {
        let mut listed = Vec::new();
        for (i, v4) in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.244.14.7"].iter().enumerate()
        {
            let mut node = node(&format!("ip{i}"), 10 + i as u8);
            node.pod_cidrs.v6 = None;
            node.public_ips.v4 = Some(v4.parse().unwrap());
            listed.push(node);
        }
        for (i, mac) in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]].into_iter().enumerate() {
            let mut node = node(&format!("mac{i}"), 20 + i as u8);
            node.pod_cidrs.v6 = None;
            node.backend = Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(Mac(mac)), v6: None } };
            listed.push(node);
        }
        let snapshot = admit(&conf(), node("x", 2), None, listed);
        assert_eq!(names(&snapshot), [] as [&str; 0]);
        let whys: Vec<_> = snapshot.left_out.iter().map(|left| left.why.as_str()).collect();
        let told = |what: &str| whys.iter().filter(|why| why.contains(what)).count();
        assert_eq!(
            (told("a host can have"), told("a loop"), told("a device can have")),
            (4, 1, 3),
            "{whys:?}"
        );
    }

    #[test]
    fn another_backend_or_vni_is_another_network() {
        let mut gw = node("a", 1);
        gw.backend = Backend::HostGw;
        let mut vni = node("b", 3);
        vni.backend = Backend::Vxlan { vni: 7, vtep: Dual::default() };
        let snapshot = admit(&conf(), node("x", 2), None, vec![gw, vni]);
        assert!(snapshot.peers.is_empty());
        let whys: Vec<_> = snapshot.left_out.iter().map(|l| l.why.as_str()).collect();
        assert_eq!(whys, ["its backend is host-gw, ours is vxlan", "its VNI is 7, ours is 1"]);
    }

    #[test]
    fn thousands_of_nodes_take_milliseconds() {
        let listed: Vec<Node> = (0..5000u32)
            .map(|i| {
                let mut node = node(&format!("n{i}"), 0);
                node.pod_cidrs.v4 = Some(
                    Ipv4Network::new(Ipv4Addr::from(0x0af4_0000 + i * 8), 29).expect("a prefix below 33"),
                );
                node.pod_cidrs.v6 = None;
                node.backend = Backend::Vxlan {
                    vni: 1,
                    vtep: Dual { v4: Some(Mac([2, 0, 0, 0, (i >> 8) as u8, i as u8])), v6: None },
                };
                node
            })
            .collect();
        let mut local = node("x", 250);
        local.backend = Backend::Vxlan { vni: 1, vtep: Dual::default() };
        let snapshot = admit(&conf(), local, None, listed);
        assert_eq!(snapshot.peers.len(), 5000);
    }
}
