//! corten-netd on a node of the lane: its configuration, its start, and what it says of itself.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::address::{CLUSTER_V4, CLUSTER_V6, Family, node_address, pod_cidr_text};
use super::eventually;
use super::node::Node;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Vxlan,
    HostGw,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

/// What differs between the clusters of a lane.
#[derive(Debug, Clone)]
pub struct Setup {
    pub backend: Backend,
    /// `auto`, `on` or `off`.
    pub fast_path: &'static str,
}

/// The list of nodes and what stands in it, on the node.
const NODES: &str = "/etc/corten/nodes.yaml";
/// Services and their endpoints.
pub const SERVICES: &str = "/etc/corten/services.yaml";
const NO_SERVICES: &str = r#"{ "apiVersion": "v1", "kind": "List", "items": [] }"#;
const NET_CONF: &str = "/etc/kube-flannel/net-conf.json";

/// What one pass may take on a busy machine; a healthy one takes milliseconds.
pub const SETTLE: Duration = Duration::from_secs(20);

/// Writes the configuration and starts the daemon. `members`: all nodes of the cluster.
pub fn start(node: &mut Node, setup: &Setup, members: &[Member]) -> Result<()> {
    node.place.write(NET_CONF, &net_conf(setup.backend).to_string())?;
    write_members(node, members)?;
    node.place.write(SERVICES, NO_SERVICES)?;
    restart(node, setup)
}

/// Starts the daemon with the configuration that is there.
pub fn restart(node: &mut Node, setup: &Setup) -> Result<()> {
    let name = node.name();
    node.start_netd(&args(&name, setup))
}

fn args(name: &str, setup: &Setup) -> Vec<String> {
    vec![
        format!("--node-list={NODES}"),
        format!("--node-name={name}"),
        format!("--net-config-path={NET_CONF}"),
        format!("--fastpath={}", setup.fast_path),
        format!("--services={SERVICES}"),
        "--iface=eth0".into(),
        "--ip-masq".into(),
    ]
}

fn net_conf(backend: Backend) -> Value {
    json!({
        "Network": CLUSTER_V4, "EnableIPv6": true, "IPv6Network": CLUSTER_V6,
        "Backend": { "Type": backend.name() },
    })
}

/// A node as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub index: usize,
    pub addresses: [IpAddr; 2],
    /// MACs of the tunnel devices, of a node whose daemon is not ours.
    pub vtep: Option<[String; 2]>,
}

impl Member {
    pub fn of(node: &Node) -> Self {
        Self { index: node.index, addresses: Family::BOTH.map(|family| node.address(family)), vtep: None }
    }

    /// A node that only the list knows.
    pub fn imagined(index: usize) -> Self {
        Self { index, addresses: Family::BOTH.map(|family| node_address(index, family)), vtep: None }
    }

    fn entry(&self) -> Value {
        let mut entry = json!({
            "name": format!("node{}", self.index),
            "podCIDRs": Family::BOTH.map(|family| pod_cidr_text(self.index, family)),
            "publicIPs": self.addresses,
        });
        if let Some([v4, v6]) = &self.vtep {
            entry["vtepMAC"] = json!(v4);
            entry["vtepMACv6"] = json!(v6);
        }
        entry
    }
}

/// Replaces the list of nodes.
pub fn write_members(node: &Node, members: &[Member]) -> Result<()> {
    let entries: Vec<Value> = members.iter().map(Member::entry).collect();
    node.place.replace(NODES, &json!({ "nodes": entries }).to_string())
}

/// Waits until the daemon has done its first pass: pods can be made.
pub fn wait_ready(node: &mut Node) -> Result<()> {
    let name = node.name();
    let settled = eventually(&format!("corten-netd on {name} is ready"), SETTLE, || {
        if let Some(status) = node.netd.as_mut().context("corten-netd was not started")?.ended()? {
            bail!("corten-netd ended ({status})");
        }
        get(node, "/readyz").map(drop)
    });
    settled.with_context(|| format!("corten-netd said:\n{}", node.netd_log()))
}

/// `corten-netd status -o json`, from the socket it asks.
pub fn status(node: &Node) -> Result<Value> {
    serde_json::from_str(&get(node, "/status?json")?).context("/status is no JSON")
}

/// The body of a page of the daemon's socket; an error when the answer is not 200.
pub fn get(node: &Node, page: &str) -> Result<String> {
    let pid = node.netd.as_ref().context("corten-netd was not started")?.pid();
    // The socket of the node, seen from outside of its mounts.
    let socket = format!("/proc/{pid}/root/run/corten/netd/netd.sock");
    let mut stream = UnixStream::connect(&socket).with_context(|| format!("connect to {socket}"))?;
    stream.set_read_timeout(Some(SETTLE))?;
    write!(
        stream,
        "GET {page} HTTP/1.1\r\nHost: node\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("GET {page}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("GET {page}: {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "GET {page}: {head}: {body}");
    Ok(body.to_string())
}

/// Waits until the daemon says that the fast path is on.
pub fn wait_fast(node: &Node) -> Result<()> {
    wait_for_fast_path(node, true)
}

/// Waits until the daemon says that the fast path is off.
pub fn wait_slow(node: &Node) -> Result<()> {
    wait_for_fast_path(node, false)
}

fn wait_for_fast_path(node: &Node, on: bool) -> Result<()> {
    let what = format!("the fast path of {} is {}", node.name(), if on { "on" } else { "off" });
    eventually(&what, SETTLE, || {
        let status = status(node)?;
        ensure!(status["fastpath"]["on"] == on, "status says {}", status["fastpath"]);
        Ok(())
    })
}
