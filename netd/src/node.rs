//! A node of the cluster network as every source describes it and every reconciler uses it.

use std::net::{Ipv4Addr, Ipv6Addr};

use corten_netlink::route::Mac;
use ipnetwork::{Ipv4Network, Ipv6Network};

/// One value per address family; a family that the cluster does not use is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dual<V4, V6> {
    pub v4: Option<V4>,
    pub v6: Option<V6>,
}

impl<V4, V6> Default for Dual<V4, V6> {
    /// Neither.
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

/// The ranges that a node's pods have their addresses from, network addresses without host bits.
pub type PodCidrs = Dual<Ipv4Network, Ipv6Network>;

/// Where other nodes reach a node: the underlay.
pub type PublicIps = Dual<Ipv4Addr, Ipv6Addr>;

/// What a node tells the others about how its pods are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A plain route by the public address; the nodes share a layer 2.
    HostGw,
    /// flannel's vxlan: the addresses of its tunnel devices, one a family.
    Vxlan { vni: u32, vtep: Dual<Mac, Mac> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The Kubernetes name; with etcd, where nodes have none, the public address.
    pub name: String,
    pub pod_cidrs: PodCidrs,
    pub public_ips: PublicIps,
    pub backend: Backend,
}
