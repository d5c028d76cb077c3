//! Reads from the kernel what [`super::endpoints`] and [`super::nodes`] decide upon. Links and addresses inside pods
//! are read through the number their namespace has here, so nothing is entered and no record on disk is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use corten_netlink::route::{Address, Link, PortLink};
use corten_netlink::{NetlinkError, Socket};

use super::endpoints::{Bridge, FarEnd, PodAddress, Port};
use super::nodes::Hop;

/// Queueing disciplines that a veth has when nobody asked for shaping.
const PLAIN_QDISCS: &[&str] = &["noqueue", "noop", "pfifo_fast", "fq_codel", "fq", "mq"];

/// The CNI bridge, its ports, and this node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `None`: there is no such bridge (yet); then there are no ports.
    pub bridge: Option<Bridge>,
    pub ports: Vec<Port>,
    pub host: BTreeSet<IpAddr>,
}

/// `clsact_is_ours`: our own programs are attached to that queueing discipline (before Linux 6.6), so it says nothing.
pub fn read(socket: &mut Socket, bridge: &str, clsact_is_ours: bool) -> Result<Found, NetlinkError> {
    let host = socket.all_addresses()?.iter().map(|a| a.cidr.address()).collect();
    let Some(link) = socket.link(bridge)?.filter(|link| link.kind.as_deref() == Some("bridge")) else {
        return Ok(Found { bridge: None, ports: Vec::new(), host });
    };
    let Some(mac) = link.mac else { return Ok(Found { bridge: None, ports: Vec::new(), host }) };
    let vlan_filtering = socket.bridge_filters_vlans(link.index)?;
    let ingress: BTreeMap<u32, String> = socket
        .qdiscs()?
        .into_iter()
        .filter(|(_, kind)| kind == "ingress" || (kind == "clsact" && !clsact_is_ours))
        .collect();
    let ports = socket.bridge_ports(link.index)?;
    let ports = ports.into_iter().map(|port| read_port(socket, port, &ingress)).collect();
    Ok(Found { bridge: Some(Bridge { index: link.index, mac, vlan_filtering }), ports, host })
}

fn read_port(socket: &mut Socket, port: PortLink, ingress: &BTreeMap<u32, String>) -> Port {
    let root = port.qdisc.filter(|kind| !PLAIN_QDISCS.contains(&kind.as_str()));
    let queueing = root.or_else(|| ingress.get(&port.link.index).cloned());
    let far_end = far_end(socket, &port.link);
    Port { index: port.link.index, name: port.link.name, isolated: port.isolated, queueing, far_end }
}

fn far_end(socket: &mut Socket, link: &Link) -> FarEnd {
    if link.kind.as_deref() != Some("veth") {
        return FarEnd::NotVeth(link.kind.clone());
    }
    let (Some(netns), Some(peer)) = (link.peer_netns, link.peer) else { return FarEnd::SameNamespace };
    // A refusal means that the namespace went; a broken socket shows at the next request about our own.
    inside(socket, netns, peer, link.index).unwrap_or(FarEnd::Gone)
}

fn inside(socket: &mut Socket, netns: u32, peer: u32, veth: u32) -> Option<FarEnd> {
    let links = socket.links_in(netns).ok()?;
    let mac = links.iter().find(|l| l.index == peer && l.peer == Some(veth))?.mac?;
    let address = |a: &Address| PodAddress { ip: a.cidr.address(), usable: !a.tentative() && !a.duplicate() };
    let addresses = socket.addresses_in(netns).ok()?;
    let addresses = addresses.iter().filter(|a| a.index == peer).map(address).collect();
    Some(FarEnd::Pod { mac, addresses })
}

/// How the kernel would send to each of `addresses`; those it would not send to are absent.
pub fn routes(
    socket: &mut Socket,
    addresses: &BTreeSet<IpAddr>,
) -> Result<BTreeMap<IpAddr, Hop>, NetlinkError> {
    let mtus: BTreeMap<u32, u32> = socket.links()?.into_iter().map(|l| (l.index, l.mtu)).collect();
    let mut hops = BTreeMap::new();
    for address in addresses {
        let Some(route) = socket.route_towards(*address)? else { continue };
        let Some(link) = route.link else { continue };
        let Some(link_mtu) = mtus.get(&link) else { continue };
        let mtu = route.mtu.unwrap_or(u32::MAX).min(*link_mtu);
        hops.insert(*address, Hop { link, gateway: route.gateway, mtu });
    }
    Ok(hops)
}
