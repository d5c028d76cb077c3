//! Several nodes on one switch, each made of namespaces: what the network lane and its bench run on.
//!
//! Everything is held by file descriptors and by mount namespaces of its own, nothing has a name on the machine except
//! one cgroup a node. So a cluster goes with its value, and with the process that made it, and any number of them run
//! side by side with the same addresses.

pub mod address;
pub mod by_hand;
pub mod chain;
pub mod netd;
pub mod node;
pub mod picture;
pub mod place;
pub mod pod;
pub mod probe;
pub mod running;
pub mod sealed;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use address::Family;
pub use node::Node;
pub use place::Place;
pub use pod::Pod;

use address::{OUTSIDE, node_address};

/// How the uplinks of the nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// A bridge in a namespace of its own, with a host outside the cluster as the nodes' gateway.
    Switch,
    /// One veth pair between two nodes, for measuring.
    Cable,
}

/// Nodes on a wire, without any pod network yet.
pub struct Cluster {
    // Nodes first: their processes end before the switch goes.
    pub nodes: Vec<Node>,
    pub outside: Option<Place>,
    switch: Option<Place>,
}

impl Cluster {
    /// `name` tells the cgroups of this cluster from others of the process.
    pub fn new(name: &str, nodes: usize, wire: Wire) -> Result<Self> {
        let mut cluster = Self { nodes: Vec::new(), outside: None, switch: None };
        if wire == Wire::Switch {
            let switch = Place::network()?;
            switch.ip(&["link add switch type bridge", "link set switch up"])?;
            cluster.switch = Some(switch);
            let outside = Place::network()?;
            cluster.plug(&outside, 0).context("the host outside")?;
            cluster.outside = Some(outside);
        }
        for index in 1..=nodes {
            cluster.join(name, index)?;
        }
        if wire == Wire::Cable {
            let [a, b] = &cluster.nodes[..] else { anyhow::bail!("a cable has two ends") };
            a.place
                .ip(&[&format!("link add eth0 type veth peer name eth0 netns {}", b.place.network_path())])?;
            for (index, node) in [(1, a), (2, b)] {
                address_uplink(&node.place, index)?;
            }
        }
        Ok(cluster)
    }

    /// A new node with this index, on the switch when there is one.
    pub fn join(&mut self, name: &str, index: usize) -> Result<&mut Node> {
        let node = Node::new(name, index)?;
        if self.switch.is_some() {
            self.plug(&node.place, index).with_context(|| format!("node {index}"))?;
        }
        self.nodes.push(node);
        Ok(self.nodes.last_mut().expect("just pushed"))
    }

    /// Takes the node away: its processes, pods, links. The others notice nothing but silence.
    pub fn leave(&mut self, index: usize) -> Option<Node> {
        let at = self.nodes.iter().position(|node| node.index == index)?;
        if let Some(switch) = &self.switch {
            // At once; the kernel takes its time to end the namespace at the other end.
            let _ = switch.ip(&[&format!("link del {}", port(index))]);
        }
        Some(self.nodes.remove(at))
    }

    pub fn node(&self, index: usize) -> &Node {
        self.nodes.iter().find(|node| node.index == index).expect("the lane made this node")
    }

    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.index == index).expect("the lane made this node")
    }

    /// The host that is no node, on a switch.
    pub fn outside(&self) -> &Place {
        self.outside.as_ref().expect("a cluster on a switch has a host outside")
    }

    fn plug(&mut self, place: &Place, index: usize) -> Result<()> {
        let switch = self.switch.as_ref().expect("only called with a switch");
        // A node that comes back has the network card that it had.
        let (port, mac) = (port(index), format!("02:77:00:00:{:02x}:{:02x}", index >> 8, index & 0xff));
        let netns = place.network_path();
        switch.ip(&[
            &format!("link add {port} type veth peer name eth0 address {mac} netns {netns}"),
            &format!("link set {port} master switch"),
            &format!("link set {port} up"),
        ])?;
        address_uplink(place, index)
    }
}

/// The node's end of the cable at the switch.
fn port(index: usize) -> String {
    format!("port{index}")
}

/// Index 0 is the host outside.
fn address_uplink(place: &Place, index: usize) -> Result<()> {
    let [v4, v6] =
        if index == 0 { OUTSIDE } else { [Family::V4, Family::V6].map(|f| node_address(index, f)) };
    // A host's uplink has long found that its addresses are its own.
    place.sysctl("net/ipv6/conf/eth0/accept_dad", "0")?;
    place.ip(&[
        "link set lo up",
        &format!("address add {v4}/24 dev eth0"),
        &format!("address add {v6}/64 dev eth0 nodad"),
        "link set eth0 up",
    ])?;
    if index > 0 {
        let [v4, v6] = OUTSIDE;
        place.ip(&[&format!("route add default via {v4}"), &format!("route add default via {v6}")])?;
    }
    Ok(())
}

/// Asks `condition` until it succeeds, at most for `limit`; the last reason comes with the failure.
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
