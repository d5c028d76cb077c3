//! Reads from the kernel what [`super::endpoints`] and [`super::nodes`] decide upon. Links and addresses inside pods
//! are read through the number their namespace has here, so nothing is entered and no record on disk is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use corten_netlink::route::{Link, PortLink};
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
    let ports: Result<Vec<Port>, _> =
        ports.into_iter().map(|port| read_port(socket, port, &ingress)).collect();
    Ok(Found { bridge: Some(Bridge { index: link.index, mac, vlan_filtering }), ports: ports?, host })
}

fn read_port(
    socket: &mut Socket,
    port: PortLink,
    ingress: &BTreeMap<u32, String>,
) -> Result<Port, NetlinkError> {
    let root = port.qdisc.filter(|kind| !PLAIN_QDISCS.contains(&kind.as_str()));
    let queueing = root.or_else(|| ingress.get(&port.link.index).cloned());
    let far_end = far_end(socket, &port.link)?;
    Ok(Port { index: port.link.index, name: port.link.name, isolated: port.isolated, queueing, far_end })
}

fn far_end(socket: &mut Socket, link: &Link) -> Result<FarEnd, NetlinkError> {
    if link.kind.as_deref() != Some("veth") {
        return Ok(FarEnd::NotVeth(link.kind.clone()));
    }
    let (Some(netns), Some(peer)) = (link.peer_netns, link.peer) else { return Ok(FarEnd::SameNamespace) };
    // Any refusal means the namespace went; a broken socket shows at the next request to our own.
    let Ok(links) = socket.links_in(netns) else { return Ok(FarEnd::Gone) };
    let peer = links.into_iter().find(|l| l.index == peer && l.peer == Some(link.index));
    let Some((peer, mac)) = peer.and_then(|p| p.mac.map(|mac| (p.index, mac))) else {
        return Ok(FarEnd::Gone);
    };
    let Ok(addresses) = socket.addresses_in(netns) else { return Ok(FarEnd::Gone) };
    let addresses = addresses.iter().filter(|a| a.index == peer);
    let address = |a: &corten_netlink::route::Address| PodAddress {
        ip: a.cidr.address(),
        usable: !a.tentative() && !a.duplicate(),
    };
    Ok(FarEnd::Pod { mac, addresses: addresses.map(address).collect() })
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
