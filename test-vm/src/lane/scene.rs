//! Three nodes with corten-netd, two serving pods on each, servers on the hosts and outside.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::address::OUTSIDE;
use crate::cluster::netd::{self, Backend, Member, Setup};
use crate::cluster::node::PORT;
use crate::cluster::running::Running;
use crate::cluster::{Cluster, Family, Node, Pod, Wire, by_hand, chain, probe};

pub struct Scene {
    pub cluster: Cluster,
    pub setup: Setup,
    name: String,
    _outside: Running,
}

/// Where hosts make pod `n` (1 or 2) of theirs reachable.
pub fn host_port(pod: usize) -> u16 {
    18_080 + pod as u16
}

impl Scene {
    pub fn new(backend: Backend, fast_path: &'static str) -> Result<Self> {
        let name = format!("{}-{fast_path}", backend.name());
        let mut scene = Self::hosts(name, Setup { backend, fast_path })?;
        let members = members(&scene.cluster);
        for node in &mut scene.cluster.nodes {
            netd::start(node, &scene.setup, &members)?;
        }
        for node in &mut scene.cluster.nodes {
            netd::wait_ready(node)?;
            add_pods(node, &[chain::flannel(), chain::flannel_with_firewall_and_tuning()])?;
            wait_for_fast_path(node, &scene.setup)?;
        }
        Ok(scene)
    }

    /// The same without netd: flannel's plumbing by hand on every node. What the lane expects of ways between pods is
    /// what these nodes do.
    pub fn by_hand(backend: Backend) -> Result<Self> {
        let setup = Setup { backend, fast_path: "off" };
        let mut scene = Self::hosts(format!("{}-by-hand", backend.name()), setup)?;
        let mtu = by_hand::join(&scene.cluster.nodes, backend)?;
        for node in &mut scene.cluster.nodes {
            let conflist = chain::bridge(node.index, mtu);
            add_pods(node, &[conflist.clone(), conflist])?;
        }
        Ok(scene)
    }

    /// Three nodes and the host outside, with servers, without a pod network.
    fn hosts(name: String, setup: Setup) -> Result<Self> {
        let mut cluster = Cluster::new(&name, 3, Wire::Switch)?;
        let listen = OUTSIDE.map(|ip| SocketAddr::new(ip, PORT));
        let outside = probe::serve(cluster.outside(), "outside", &listen, None)?;
        for node in &mut cluster.nodes {
            node.serve()?;
        }
        Ok(Self { cluster, setup, name, _outside: outside })
    }

    /// Tells every node which nodes there are now.
    pub fn publish(&self) -> Result<()> {
        let members = members(&self.cluster);
        self.cluster.nodes.iter().try_for_each(|node| netd::write_members(node, &members))
    }

    /// A node with this index comes (or comes back), with pods, as the last of the cluster; the others learn of it.
    pub fn join(&mut self, index: usize) -> Result<()> {
        self.cluster.join(&self.name, index)?;
        let members = members(&self.cluster);
        let setup = self.setup.clone();
        let node = self.cluster.node_mut(index);
        node.serve()?;
        netd::start(node, &setup, &members)?;
        self.publish()?;
        let node = self.cluster.node_mut(index);
        netd::wait_ready(node)?;
        add_pods(node, &[chain::flannel(), chain::flannel_with_firewall_and_tuning()])?;
        wait_for_fast_path(node, &setup)
    }

    /// For who reads why a row failed: what each daemon said last, and its node's routes and neighbours.
    pub fn say_what_is(&self) {
        for node in &self.cluster.nodes {
            let log = node.netd_log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{} said last:\n{}", node.name(), lines[lines.len().saturating_sub(30)..].join("\n"));
            let looks: [&[&str]; 4] = [&["address"], &["route"], &["-6", "route"], &["neighbour"]];
            for look in looks {
                eprintln!("ip {}:\n{}", look.join(" "), node.place.run("ip", look).unwrap_or_default());
            }
            if let Ok(status) = netd::status(node) {
                eprintln!("status: {status}");
            }
        }
    }

    pub fn node(&self, index: usize) -> &Node {
        self.cluster.node(index)
    }
}

pub fn members(cluster: &Cluster) -> Vec<Member> {
    cluster.nodes.iter().map(Member::of).collect()
}

/// A serving pod by each network, with a host port each.
fn add_pods(node: &mut Node, conflists: &[Value]) -> Result<()> {
    for (number, conflist) in (1..).zip(conflists) {
        let ports = ["tcp", "udp"].map(
            |protocol| json!({ "hostPort": host_port(number), "containerPort": PORT, "protocol": protocol }),
        );
        node.add_serving_pod(conflist, &json!({ "portMappings": ports }))?;
    }
    Ok(())
}

fn wait_for_fast_path(node: &Node, setup: &Setup) -> Result<()> {
    if setup.fast_path == "on" { netd::wait_fast(node) } else { Ok(()) }
}

/// All pods of the cluster with their nodes.
pub fn pods(cluster: &Cluster) -> Vec<(&Node, &Pod)> {
    cluster.nodes.iter().flat_map(|node| node.pods.iter().map(move |pod| (node, pod))).collect()
}

/// Where the server of a pod is.
pub fn server_of(pod: &Pod, family: Family) -> Result<SocketAddr> {
    Ok(SocketAddr::new(pod.address(family)?, PORT))
}

/// The first pod of a node.
pub fn first_pod(node: &Node) -> Result<&Pod> {
    let pod = node.pods.first();
    ensure!(pod.is_some(), "{} has no pod", node.name());
    pod.context("checked above")
}
