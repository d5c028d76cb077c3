//! Two nodes on a cable with one way of joining their pods, servers and clients in place.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::netd::Backend;
use crate::cluster::running::Running;
use crate::cluster::{Cluster, Family, Place, Wire, by_hand, chain, eventually, netd, probe};

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
    /// From node to node of a cluster: past its rules and conntrack.
    pub nodes: Option<Way>,
    _cluster: Cluster,
}

impl Contender {
    /// `cpu` is where round trips run.
    pub fn hosts(cpu: usize) -> Result<Self> {
        let cluster = Cluster::new("hosts", 2, Wire::Cable)?;
        let [a, b] = [1, 2].map(|index| cluster.node(index));
        let across = way(&a.place, &b.place, b.address(Family::V4), cpu)?;
        let loopback = way(&a.place, &a.place, IpAddr::from([127, 0, 0, 1]), cpu)?;
        Ok(Self { across, same_node: None, loopback: Some(loopback), nodes: None, _cluster: cluster })
    }

    pub fn pods(name: &str, backend: Backend, maker: Maker, cpu: usize) -> Result<Self> {
        let mut cluster = Cluster::new(name, 2, Wire::Cable)?;
        let mtu = match maker {
            Maker::ByHand => Some(by_hand::join(&cluster.nodes, backend)?),
            Maker::Netd { fast_path } => {
                netd(&mut cluster, backend, fast_path)?;
                None
            }
        };
        for (index, count) in [(1, 2), (2, 1)] {
            for _ in 0..count {
                let conflist = mtu.map_or_else(chain::flannel, |mtu| chain::bridge(index, mtu));
                cluster.node_mut(index).add_pod(&conflist, &json!({}))?;
            }
        }
        let pods: Vec<_> = cluster.nodes.iter().flat_map(|node| &node.pods).collect();
        let [near, neighbour, far] = pods[..] else { anyhow::bail!("three pods were made") };
        let across = way(&near.place, &far.place, far.address(Family::V4)?, cpu)?;
        let same_node = way(&near.place, &neighbour.place, neighbour.address(Family::V4)?, cpu)?;
        let nodes = match maker {
            Maker::ByHand => {
                let [a, b] = [1, 2].map(|index| cluster.node(index));
                Some(way(&a.place, &b.place, b.address(Family::V4), cpu)?)
            }
            Maker::Netd { .. } => None,
        };
        if matches!(maker, Maker::Netd { fast_path: true }) {
            for node in &cluster.nodes {
                netd::wait_fast(node)?;
            }
        }
        Ok(Self { across, same_node: Some(same_node), loopback: None, nodes, _cluster: cluster })
    }
}

fn netd(cluster: &mut Cluster, backend: Backend, fast_path: bool) -> Result<()> {
    let setup = netd::Setup { backend, fast_path: if fast_path { "on" } else { "off" } };
    let members: Vec<_> = cluster.nodes.iter().map(netd::Member::of).collect();
    for node in &mut cluster.nodes {
        netd::start(node, &setup, &members)?;
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
        // iperf3 gives up when its control connection is slow, as on a machine with other work.
        eventually("iperf3 measures", Duration::from_secs(20), || {
            self.stream(&["--time", &seconds.to_string()])
        })
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
