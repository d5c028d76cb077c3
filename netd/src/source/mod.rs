//! Where the list of nodes comes from: a file, an apiserver, etcd.
//!
//! A source publishes what this node is to the others, says which pod CIDRs it has, and then tells all nodes, again and
//! again: every [`Snapshot`] is whole, so nobody who reads one must have seen the one before. A source that loses its
//! connection keeps its last snapshot and says so in [`Snapshot::fault`]. Which nodes may be peers is decided in one
//! place, [`admit`], whatever the source.

pub mod admit;

use corten_netlink::route::Mac;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::net_conf::{NetConf, NetConfError};
use crate::node::{Backend, Dual, Node, PublicIps};

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

/// See the module's text. Cheap to share: what runs behind it ends when the last handle is dropped.
pub trait NodeSource: Send + Sync {
    /// What it is and where it reads, for people: `node list /etc/corten/nodes.yaml`.
    fn name(&self) -> String;

    /// The network's configuration.
    fn net_conf(&self) -> BoxFuture<'_, Result<NetConf, SourceError>>;

    /// What is known of this node from before.
    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, SourceError>>;

    /// Publishes `announcement` and returns this node with its pod CIDRs, for which it waits, or which it allocates.
    /// Repeated when an address of this node changes. Nothing is changed on this machine.
    fn acquire<'a>(&'a self, announcement: &'a Announcement) -> BoxFuture<'a, Result<Node, SourceError>>;

    /// Snapshots from now on; the first is there. To be called after [`NodeSource::acquire`]. The channel closes when
    /// this node has lost its place in the network for good (its lease was revoked): the daemon then exits.
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
