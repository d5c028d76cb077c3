//! flanneld's plumbing typed by hand with `ip`, `bridge` and `nft`: the kernel's own vxlan and routes, without a line
//! of ours. What netd must be wire compatible with, and no slower than.
//! Source: flannel v0.28 pkg/backend/{vxlan,hostgw}, pkg/trafficmngr/nftables.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::address::{CLUSTER_V4, CLUSTER_V6, Family, node_address, pod_cidr, pod_cidr_text};
use super::netd::Backend;
use super::node::Node;

/// flannel's defaults.
pub const VNI: u32 = 1;
pub const UDP_PORT: u16 = 8472;

/// What others need to know of a node whose pods are behind vxlan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub index: usize,
    /// MAC of the IPv4 and of the IPv6 tunnel device.
    pub vtep: [String; 2],
}

fn device(family: Family) -> String {
    match family {
        Family::V4 => format!("flannel.{VNI}"),
        Family::V6 => format!("flannel-v6.{VNI}"),
    }
}

fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Makes the tunnel devices of the node, one a family, and tells what peers need.
pub fn vxlan_devices(node: &Node) -> Result<Peer> {
    for family in Family::BOTH {
        let (device, local, subnet) = (device(family), node.address(family), pod_cidr(node.index, family).0);
        node.place.ip(&[
            &format!(
                "link add {device} type vxlan id {VNI} local {local} dev eth0 dstport {UDP_PORT} nolearning"
            ),
            &format!("address add {subnet}/{} dev {device}", host_bits(subnet)),
            &format!("link set {device} up"),
        ])?;
    }
    Ok(Peer { index: node.index, vtep: [mac(node, &device(Family::V4))?, mac(node, &device(Family::V6))?] })
}

/// The MAC of a link.
pub fn mac(node: &Node, device: &str) -> Result<String> {
    let text = node.place.run("ip", &["-j", "link", "show", "dev", device])?;
    let links: serde_json::Value = serde_json::from_str(&text).context("ip printed no JSON")?;
    links[0]["address"].as_str().map(String::from).with_context(|| format!("{device} has no MAC: {text}"))
}

/// Neighbour, forwarding entry and route to a peer's pods.
pub fn vxlan_peer(node: &Node, peer: &Peer) -> Result<()> {
    for (family, mac) in Family::BOTH.into_iter().zip(&peer.vtep) {
        let (device, subnet) = (device(family), pod_cidr(peer.index, family).0);
        let to = node_address(peer.index, family);
        node.place.ip(&[&format!("neighbour replace {subnet} lladdr {mac} dev {device} nud permanent")])?;
        node.place.run(
            "bridge",
            &["fdb", "replace", mac, "dev", &device, "dst", &to.to_string(), "self", "permanent"],
        )?;
        let cidr = pod_cidr_text(peer.index, family);
        node.place.ip(&[&format!("route replace {cidr} via {subnet} dev {device} onlink")])?;
    }
    Ok(())
}

/// Plain routes to a peer's pods.
pub fn host_gw_peer(node: &Node, peer: usize) -> Result<()> {
    for family in Family::BOTH {
        let (cidr, via) = (pod_cidr_text(peer, family), node_address(peer, family));
        node.place.ip(&[&format!("route replace {cidr} via {via} dev eth0")])?;
    }
    Ok(())
}

/// All of it on nodes that have none: every node reaches the pods of every other. Returns the MTU of pods.
pub fn join(nodes: &[Node], backend: Backend) -> Result<u32> {
    // Room for the outer headers of IPv6, of which flannel takes the smaller MTU where it has both families.
    let mtu = if backend == Backend::Vxlan { 1430 } else { 1500 };
    let mut peers = Vec::new();
    if backend == Backend::Vxlan {
        for node in nodes {
            peers.push(vxlan_devices(node)?);
        }
    }
    for node in nodes {
        for other in nodes.iter().filter(|other| other.index != node.index) {
            match peers.iter().find(|peer| peer.index == other.index) {
                Some(peer) => vxlan_peer(node, peer)?,
                None => host_gw_peer(node, other.index)?,
            }
        }
        masquerade(node)?;
        subnet_env(node, mtu)?;
    }
    Ok(mtu)
}

/// flannel's masquerade rules.
pub fn masquerade(node: &Node) -> Result<()> {
    let table = |(family, cluster)| {
        let (ip, multicast) = if family == Family::V4 { ("ip", "224.0.0.0/4") } else { ("ip6", "ff00::/8") };
        let table = if family == Family::V4 { "flannel-ipv4" } else { "flannel-ipv6" };
        let pods = pod_cidr_text(node.index, family);
        format!(
            "table {ip} {table} {{\n\
               chain postrtg {{\n type nat hook postrouting priority srcnat;\n\
                 meta mark & 0x4000 == 0x4000 return\n\
                 {ip} saddr {pods} {ip} daddr {cluster} return\n\
                 {ip} saddr {cluster} {ip} daddr {pods} return\n\
                 {ip} saddr != {cluster} {ip} daddr {pods} return\n\
                 {ip} saddr {cluster} {ip} daddr != {multicast} masquerade fully-random\n\
                 {ip} saddr != {cluster} {ip} daddr {cluster} masquerade fully-random\n\
               }}\n\
               chain forward {{\n type filter hook forward priority filter; policy accept;\n\
                 {ip} saddr {cluster} accept\n {ip} daddr {cluster} accept\n\
               }}\n}}\n"
        )
    };
    let text = [(Family::V4, CLUSTER_V4), (Family::V6, CLUSTER_V6)].map(table).concat();
    node.place.feed("nft", &["-f", "-"], &[], &text).map(drop)
}

/// subnet.env, as flanneld writes it for the CNI plugin.
pub fn subnet_env(node: &Node, mtu: u32) -> Result<()> {
    let text = format!(
        "FLANNEL_NETWORK={CLUSTER_V4}\nFLANNEL_SUBNET={}/24\nFLANNEL_IPV6_NETWORK={CLUSTER_V6}\n\
         FLANNEL_IPV6_SUBNET={}/64\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n",
        super::address::gateway(node.index, Family::V4),
        super::address::gateway(node.index, Family::V6),
    );
    node.place.replace("/run/flannel/subnet.env", &text)
}
