//! Where the list of nodes comes from: a file, an apiserver, etcd.
//!
//! A source publishes what this node is to the others, says which pod CIDRs it has, and then tells all nodes, again and
//! again: every [`Snapshot`] is whole, so nobody who reads one must have seen the one before. A source that loses its
//! connection keeps its last snapshot and says so in [`Snapshot::fault`]. Which nodes may be peers is decided in one
//! place, [`admit`], whatever the source.

pub mod admit;
pub mod allocate;
pub mod etcd;
pub mod file;
pub mod kube;
pub mod lease;
mod publish;

use std::path::Path;

use corten_netlink::route::Mac;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::net_conf::{NetConf, NetConfError};
use crate::node::{Backend, Dual, Node, PodCidrs, PublicIps};

/// What a node says of itself before it knows its pod CIDRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub public_ips: PublicIps,
    pub backend: Backend,
}

/// What a source knows of this node from an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Addresses of the tunnel devices: taken again, peers need not learn new ones.
    pub vtep: Dual<Mac, Mac>,
    /// Public addresses that the cluster's administrator gave this node (`node-public-ip`); they count more than the
    /// uplink's and more than `--public-ip`.
    pub public_ips: PublicIps,
}

/// All nodes of the network at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// This node.
    pub local: Node,
    /// All other nodes that traffic may go to, by name.
    pub peers: Vec<Node>,
    /// Nodes, or one address family of them, that get no traffic, and why.
    pub left_out: Vec<LeftOut>,
    /// Why this may be old: the source cannot be read, or what it says cannot be understood.
    pub fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    pub node: String,
    pub why: String,
}

impl LeftOut {
    /// `why` may quote what the node wrote of itself, which can be anything, of any length: it goes into logs and onto
    /// terminals.
    pub fn new(node: impl Into<String>, why: &str) -> Self {
        const LONGEST: usize = 300;
        let mut plain: String = why
            .chars()
            .take(LONGEST)
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        if plain.len() < why.len() && why.chars().nth(LONGEST).is_some() {
            plain.push_str("...");
        }
        Self { node: node.into(), why: plain }
    }
}

/// See the module's text.
pub trait NodeSource: Send + Sync {
    /// What it is and where it reads, for people: `node list /etc/corten/nodes.yaml`.
    fn name(&self) -> String;

    /// The network's configuration, read once: flannel's daemon too is restarted when it changes.
    fn net_conf(&self) -> &NetConf;

    /// What is known of this node from before.
    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, SourceError>>;

    /// Publishes `announcement` and returns this node with its pod CIDRs, for which it waits, or which it allocates.
    /// Repeated when an address of this node changes. Nothing is changed on this machine.
    fn acquire<'a>(&'a self, announcement: &'a Announcement) -> BoxFuture<'a, Result<Node, SourceError>>;

    /// Snapshots from now on; the first is there, and follows [`NodeSource::acquire`], which comes before. The channel
    /// closes when this node has lost its place in the network for good (its lease was revoked): the daemon then exits.
    /// Watching ends when the receiver is dropped.
    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Snapshot>, SourceError>>;

    /// Says that pods of this node have a network now.
    fn network_is_up(&self) -> BoxFuture<'_, Result<(), SourceError>>;
}

/// What keeps a source from answering. All but [`SourceError::is_final`] ones may pass by waiting.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read {file}: {error}")]
    Read { file: String, error: std::io::Error },
    #[error("{place}: {error}")]
    NetConf { place: String, error: NetConfError },
    /// What was read makes no sense; the message names file, node and field.
    #[error("{place}: {problem}")]
    Invalid { place: String, problem: String },
    /// Nothing under the name of this node.
    #[error("node {node} is not in {place}; {remedy}")]
    NoSuchNode { node: String, place: String, remedy: String },
    /// The node is there without a pod CIDR.
    #[error("node {node} has no pod CIDR of {family} yet; {remedy}")]
    NoPodCidr { node: String, family: &'static str, remedy: &'static str },
    /// A server refused, or could not be reached.
    #[error("{place}: {tried}: {problem}")]
    Server { place: String, tried: String, problem: String, passes: bool },
    /// All subnets of the network are taken.
    #[error("no free subnet in {network}: {nodes} nodes have one; widen the network or lengthen SubnetLen")]
    Exhausted { network: String, nodes: usize },
}

impl SourceError {
    /// Waiting will not help: a person must act.
    pub fn is_final(&self) -> bool {
        match self {
            SourceError::NetConf { .. } | SourceError::Invalid { .. } => true,
            SourceError::Server { passes, .. } => !passes,
            SourceError::Read { .. }
            | SourceError::NoSuchNode { .. }
            | SourceError::NoPodCidr { .. }
            | SourceError::Exhausted { .. } => false,
        }
    }
}

/// Reads net-conf.json from a file.
pub fn read_net_conf(file: &Path) -> Result<NetConf, SourceError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| SourceError::Read { file: file.display().to_string(), error })?;
    text.parse().map_err(|error| SourceError::NetConf { place: file.display().to_string(), error })
}

/// This node as it announces itself, with the pod CIDRs that `place` gives it.
///
/// # Errors
/// A family of the network without a pod CIDR (which may come), or one outside the network or too small for a bridge and a
/// pod (which a person must mend).
pub fn local_node(
    conf: &NetConf,
    name: &str,
    place: &str,
    cidrs: PodCidrs,
    announcement: &Announcement,
) -> Result<Node, SourceError> {
    const REMEDY: &str =
        "give it one in the node list, or run the controller manager with --allocate-node-cidrs";
    let missing = |family| SourceError::NoPodCidr { node: name.to_owned(), family, remedy: REMEDY };
    let outside = |cidr: String, network: String| SourceError::Invalid {
        place: place.to_owned(),
        problem: format!(
            "pod CIDR {cidr} of node {name} is not inside the network {network} of net-conf; change one of them"
        ),
    };
    let small = |cidr: String| SourceError::Invalid {
        place: place.to_owned(),
        problem: format!(
            "pod CIDR {cidr} of node {name} has no room for a bridge and a pod; give it a larger one"
        ),
    };
    let mut pod_cidrs = PodCidrs::default();
    if let Some(network) = conf.networks.v4 {
        let cidr = cidrs.v4.ok_or_else(|| missing("IPv4"))?;
        if !admit::within_v4(network, cidr) {
            return Err(outside(cidr.to_string(), network.to_string()));
        }
        if cidr.prefix() > 30 {
            return Err(small(cidr.to_string()));
        }
        pod_cidrs.v4 = Some(cidr);
    }
    if let Some(network) = conf.networks.v6 {
        let cidr = cidrs.v6.ok_or_else(|| missing("IPv6"))?;
        if !admit::within_v6(network, cidr) {
            return Err(outside(cidr.to_string(), network.to_string()));
        }
        if cidr.prefix() > 126 {
            return Err(small(cidr.to_string()));
        }
        pod_cidrs.v6 = Some(cidr);
    }
    Ok(Node {
        name: name.to_owned(),
        pod_cidrs,
        public_ips: announcement.public_ips,
        backend: announcement.backend,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node's annotations are its own to write, and `corten-netd status` shows them to an administrator.
    #[test]
    fn what_a_node_wrote_cannot_move_a_terminals_cursor_nor_fill_the_log() {
        let left =
            LeftOut::new("a", &format!("its backend \x1b[2J\nready yes {} is not", "x".repeat(1 << 20)));
        assert!(left.why.starts_with("its backend \u{fffd}[2J\u{fffd}ready yes xxx"), "{}", &left.why[..40]);
        assert!(left.why.len() < 400 && left.why.ends_with("xxx..."), "{}", left.why.len());
        assert_eq!(LeftOut::new("a", "kürzer").why, "kürzer");
    }

    #[test]
    fn a_pod_cidr_without_room_for_a_pod_is_refused() {
        let conf: NetConf = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd44::/48",
            "Backend": {"Type": "host-gw"}}"#
            .parse()
            .unwrap();
        let told = Announcement { public_ips: PublicIps::default(), backend: Backend::HostGw };
        let local = |v4: &str, v6: &str| {
            let cidrs = Dual { v4: v4.parse().ok(), v6: v6.parse().ok() };
            local_node(&conf, "a", "there", cidrs, &told).map_err(|error| error.to_string())
        };
        assert!(local("10.244.1.0/30", "fd44::/126").is_ok());
        for (v4, v6) in [("10.244.255.255/32", "fd44::/64"), ("10.244.1.0/24", "fd44::2/127")] {
            let error = local(v4, v6).unwrap_err();
            assert!(error.contains("no room for a bridge and a pod"), "{error}");
        }
    }
}
