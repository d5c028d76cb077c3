//! A node: its namespaces, its CNI plugins, its pods, its corten-netd.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::address::{Family, node_address};
use super::chain;
use super::pod::Pod;
use super::probe;
use super::running::Running;
use super::sealed;
use crate::artifacts;

use super::Place;

/// Where the servers of the lane listen, on hosts and in pods.
pub const PORT: u16 = 8080;

pub struct Node {
    pub index: usize,
    /// Where it is on the wire: the index of its uplink's addresses.
    seat: usize,
    // Processes and pods before the place they are in.
    pub netd: Option<Running>,
    pub pods: Vec<Pod>,
    servers: Vec<Running>,
    pub place: Place,
    /// What netd says goes here.
    log: tempfile::NamedTempFile,
    made: usize,
}

impl Node {
    /// `name` is that of the cluster. The node has no uplink yet.
    pub fn new(name: &str, index: usize) -> Result<Self> {
        let place = Place::node(&format!("{}{name}-{index}", sealed::tag()))?;
        let log = tempfile::NamedTempFile::new().context("make a log")?;
        let node = Self {
            index,
            seat: index,
            netd: None,
            pods: Vec::new(),
            servers: Vec::new(),
            place,
            log,
            made: 0,
        };
        // What the installation of a Kubernetes node sets.
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            node.place.sysctl(key, "1")?;
        }
        node.place.ip(&["link set lo up"])?;
        let plugin = program("corten-cni")?;
        node.place.run(&plugin, &["install", "--dir", chain::BIN_DIR])?;
        Ok(node)
    }

    /// `node2`
    pub fn name(&self) -> String {
        format!("node{}", self.index)
    }

    pub fn address(&self, family: Family) -> IpAddr {
        node_address(self.seat, family)
    }

    /// Gives the uplink the addresses of another seat in place of its own, as a node that gets a new lease.
    pub fn readdress(&mut self, seat: usize) -> Result<()> {
        let [old4, old6] = Family::BOTH.map(|family| self.address(family));
        self.seat = seat;
        let [v4, v6] = Family::BOTH.map(|family| self.address(family));
        let [via4, via6] = super::address::OUTSIDE;
        self.place.ip(&[
            &format!("address del {old4}/24 dev eth0"),
            &format!("address del {old6}/64 dev eth0"),
            &format!("address add {v4}/24 dev eth0"),
            &format!("address add {v6}/64 dev eth0 nodad"),
            &format!("route replace default via {via4}"),
            &format!("route replace default via {via6}"),
        ])
    }

    /// Starts the lane's server on the node itself, at its uplink's addresses.
    pub fn serve(&mut self) -> Result<()> {
        let listen = Family::BOTH.map(|family| SocketAddr::new(self.address(family), PORT));
        self.servers.push(probe::serve(&self.place, &self.name(), &listen, None)?);
        Ok(())
    }

    /// A pod by the node's conflist; nothing runs in it yet.
    pub fn add_pod(&mut self, conflist: &Value, runtime: &Value) -> Result<&mut Pod> {
        self.made += 1;
        let name = format!("{}-pod{}", self.name(), self.made);
        let pod = Pod::add(&self.place, &name, conflist, runtime)?;
        self.pods.push(pod);
        Ok(self.pods.last_mut().expect("just pushed"))
    }

    /// The pod with the lane's server in it.
    pub fn add_serving_pod(&mut self, conflist: &Value, runtime: &Value) -> Result<&mut Pod> {
        let pod = self.add_pod(conflist, runtime)?;
        pod.serve(PORT, None)?;
        Ok(pod)
    }

    /// Starts corten-netd with these arguments.
    pub fn start_netd(&mut self, args: &[String]) -> Result<()> {
        let log = File::options().append(true).open(self.log.path()).context("open netd's log")?;
        let mut command = self.place.command(program("corten-netd")?)?;
        command.args(args).env("NODE_NAME", self.name());
        self.netd =
            Some(Running::start(&mut command, &format!("corten-netd on {}", self.name()), Some(log))?);
        Ok(())
    }

    /// What netd said so far.
    pub fn netd_log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

/// A program under test.
pub fn program(name: &str) -> Result<String> {
    let file: PathBuf = artifacts::program(name).map_err(|missing| anyhow!("{missing}"))?;
    file.into_os_string().into_string().map_err(|name| anyhow!("{} is not UTF-8", name.display()))
}
