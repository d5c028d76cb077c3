//! Two nodes on a cable with one way of joining their pods, servers and clients in place.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::running::Running;
use crate::cluster::{Cluster, Family, Place, Wire, by_hand, chain, eventually, netd, probe};

/// The kind of network between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// Hosts alone.
    None,
    HostGw,
    Vxlan,
}

/// Who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    ByHand,
    Netd { fast_path: bool },
}

/// A place to measure from and an address to measure to.
pub struct Way {
    from: Place,
    to: IpAddr,
    cpu: usize,
    _servers: Vec<Running>,
}

/// Where the servers listen.
const ROUNDS_PORT: u16 = 9000;
const STREAM_PORT: u16 = 5201;

pub struct Contender {
    // Processes before the namespaces they run in.
    pub across: Way,
    /// From pod to pod on one node; hosts have none.
    pub same_node: Option<Way>,
    pub loopback: Option<Way>,
    _cluster: Cluster,
}

impl Contender {
    /// `cpu` is where round trips run.
    pub fn new(name: &str, overlay: Overlay, maker: Maker, cpu: usize) -> Result<Self> {
        let mut cluster = Cluster::new(name, 2, Wire::Cable)?;
        if overlay == Overlay::None {
            let [a, b] = [1, 2].map(|index| cluster.node(index));
            let across = way(&a.place, &b.place, b.address(Family::V4), cpu)?;
            let loopback = way(&a.place, &a.place, IpAddr::from([127, 0, 0, 1]), cpu)?;
            return Ok(Self { across, same_node: None, loopback: Some(loopback), _cluster: cluster });
        }
        match maker {
            Maker::ByHand => by_hand(&cluster, overlay)?,
            Maker::Netd { fast_path } => netd(&mut cluster, overlay, fast_path)?,
        }
        for (index, count) in [(1, 2), (2, 1)] {
            for _ in 0..count {
                let conflist = if maker == Maker::ByHand {
                    chain::bridge(index, mtu(overlay))
                } else {
                    chain::flannel()
                };
                cluster.node_mut(index).add_pod(&conflist, &json!({}))?;
            }
        }
        let pods: Vec<_> = cluster.nodes.iter().flat_map(|node| &node.pods).collect();
        let [near, neighbour, far] = pods[..] else { anyhow::bail!("three pods were made") };
        let across = way(&near.place, &far.place, far.address(Family::V4)?, cpu)?;
        let same_node = way(&near.place, &neighbour.place, neighbour.address(Family::V4)?, cpu)?;
        if matches!(maker, Maker::Netd { fast_path: true }) {
            for node in &cluster.nodes {
                netd::wait_fast(node)?;
            }
        }
        Ok(Self { across, same_node: Some(same_node), loopback: None, _cluster: cluster })
    }
}

fn mtu(overlay: Overlay) -> u32 {
    if overlay == Overlay::Vxlan { 1450 } else { 1500 }
}

fn by_hand(cluster: &Cluster, overlay: Overlay) -> Result<()> {
    let [a, b] = [1, 2].map(|index| cluster.node(index));
    if overlay == Overlay::Vxlan {
        let peers = [by_hand::vxlan_devices(a)?, by_hand::vxlan_devices(b)?];
        by_hand::vxlan_peer(a, &peers[1])?;
        by_hand::vxlan_peer(b, &peers[0])?;
    } else {
        by_hand::host_gw_peer(a, 2)?;
        by_hand::host_gw_peer(b, 1)?;
    }
    for node in [a, b] {
        by_hand::masquerade(node)?;
        by_hand::subnet_env(node, mtu(overlay))?;
    }
    Ok(())
}

fn netd(cluster: &mut Cluster, overlay: Overlay, fast_path: bool) -> Result<()> {
    let backend = if overlay == Overlay::Vxlan { netd::Backend::Vxlan } else { netd::Backend::HostGw };
    let setup = netd::Setup { backend, fast_path: if fast_path { "on" } else { "off" } };
    for node in &mut cluster.nodes {
        netd::start(node, &setup, &[1, 2])?;
    }
    for node in &mut cluster.nodes {
        netd::wait_ready(node)?;
    }
    Ok(())
}

fn way(from: &Place, server: &Place, to: IpAddr, cpu: usize) -> Result<Way> {
    let rounds = probe::serve(server, "bench", &[SocketAddr::new(to, ROUNDS_PORT)], Some(cpu))?;
    let mut iperf = server.command("iperf3")?;
    iperf.args(["--server", "--bind", &to.to_string(), "--port", &STREAM_PORT.to_string()]);
    iperf.args(["--logfile", "/dev/null"]);
    let stream = Running::start(&mut iperf, "iperf3 --server", None)?;
    let way = Way { from: from.clone(), to, cpu, _servers: vec![rounds, stream] };
    // The first packets meet neighbour entries that are still unknown; and both servers have to be up.
    eventually("the server of iperf3 answers", Duration::from_secs(20), || way.stream(&["--bytes", "1M"]))?;
    way.rounds(50)?;
    Ok(way)
}

impl Way {
    /// TCP round trips a second.
    pub fn rounds(&self, millis: u64) -> Result<f64> {
        let to = SocketAddr::new(self.to, ROUNDS_PORT);
        Ok(probe::rounds(&self.from, to, millis, Some(self.cpu), false)?.per_second)
    }

    /// Bits a second of one TCP stream, as they arrived.
    pub fn stream_for(&self, seconds: u64) -> Result<f64> {
        self.stream(&["--time", &seconds.to_string()])
    }

    fn stream(&self, how_long: &[&str]) -> Result<f64> {
        let mut iperf = self.from.command("iperf3")?;
        iperf.args(["--client", &self.to.to_string(), "--port", &STREAM_PORT.to_string(), "--json"]);
        iperf.args(how_long).args(["--affinity", &stream_cpus()]);
        let output = iperf.stderr(Stdio::null()).output().context("start iperf3")?;
        let report: Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
        ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
        report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 gave no figure")
    }
}

/// The client's CPU and the server's.
fn stream_cpus() -> String {
    let last = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    format!("{last},{}", last.saturating_sub(1))
}
