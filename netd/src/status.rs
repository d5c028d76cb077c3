//! What the daemon knows, for people, programs and Prometheus. Pure: [`Report`] is put together from what the parts
//! tell, and rendered.

use std::fmt::Write as _;

use serde::Serialize;

use crate::fastpath;
use crate::metrics::Metrics;
use crate::net_conf::{BackendConf, NetConf};
use crate::node::{Backend, Dual, Node};
use crate::overlay;
use crate::services;
use crate::source::Snapshot;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub source: String,
    pub ready: bool,
    /// What the start waits for, or what keeps the network from being ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<overlay::Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fastpath: Option<fastpath::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<services::Status>,
    /// Everything that is not as wished, one line each.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkReport {
    pub ranges: Vec<String>,
    pub backend: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodesReport {
    pub local: NodeReport,
    pub peers: Vec<NodeReport>,
    pub left_out: Vec<LeftOutReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    pub name: String,
    pub pod_cidrs: Vec<String>,
    pub public_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vtep_macs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutReport {
    pub node: String,
    pub why: String,
}

impl From<&NetConf> for NetworkReport {
    fn from(conf: &NetConf) -> Self {
        let vxlan = match &conf.backend {
            BackendConf::HostGw => None,
            BackendConf::Vxlan(vxlan) => Some(vxlan),
        };
        Self {
            ranges: both(conf.networks),
            backend: conf.backend.name(),
            vni: vxlan.map(|vxlan| vxlan.vni),
            port: vxlan.map(|vxlan| vxlan.port),
        }
    }
}

impl From<&Snapshot> for NodesReport {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            local: (&snapshot.local).into(),
            peers: snapshot.peers.iter().map(Into::into).collect(),
            left_out: snapshot
                .left_out
                .iter()
                .map(|left| LeftOutReport { node: left.node.clone(), why: left.why.clone() })
                .collect(),
            fault: snapshot.fault.clone(),
        }
    }
}

impl From<&Node> for NodeReport {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            pod_cidrs: both(node.pod_cidrs),
            public_ips: both(node.public_ips),
            vtep_macs: match node.backend {
                Backend::HostGw => Vec::new(),
                Backend::Vxlan { vtep, .. } => both(vtep),
            },
        }
    }
}

fn both<A: ToString, B: ToString>(dual: Dual<A, B>) -> Vec<String> {
    dual.v4.map(|v| v.to_string()).into_iter().chain(dual.v6.map(|v| v.to_string())).collect()
}

impl Report {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key:<10} {value}");
        };
        line("ready", if self.ready { "yes".into() } else { "no".into() });
        if let Some(waiting) = &self.waiting {
            line("waiting", waiting.clone());
        }
        line("nodes", self.source.clone());
        if let Some(network) = &self.network {
            let vni = network.vni.map(|vni| format!(" {vni}")).unwrap_or_default();
            let port = network.port.map(|port| format!(", UDP port {port}")).unwrap_or_default();
            line("network", format!("{}, {}{vni}{port}", network.ranges.join(" "), network.backend));
        }
        if let Some(nodes) = &self.nodes {
            let uplink = self.overlay.as_ref().and_then(|o| o.uplink.clone());
            let mtu = self.overlay.as_ref().and_then(|o| o.pod_mtu);
            line(
                "this node",
                format!(
                    "{}: pods {} at {}{}{}",
                    nodes.local.name,
                    nodes.local.pod_cidrs.join(" "),
                    nodes.local.public_ips.join(" "),
                    uplink.map(|link| format!(", uplink {link}")).unwrap_or_default(),
                    mtu.map(|mtu| format!(", pod MTU {mtu}")).unwrap_or_default(),
                ),
            );
            line("peers", nodes.peers.len().to_string());
            out.push_str(&self.peers(nodes));
        }
        if let Some(fastpath) = &self.fastpath {
            out.push_str(&fastpath.to_string());
        }
        if let Some(services) = &self.services {
            let _ = writeln!(out, "{}", services.summary());
        }
        if !self.problems.is_empty() {
            out.push_str("problems\n");
            for problem in &self.problems {
                let _ = writeln!(out, "  {problem}");
            }
        }
        out
    }

    fn peers(&self, nodes: &NodesReport) -> String {
        if nodes.peers.is_empty() {
            return String::new();
        }
        let mut rows = vec![["  NAME".to_owned(), "PODS".into(), "AT".into(), "BY".into()]];
        for peer in &nodes.peers {
            rows.push([
                format!("  {}", peer.name),
                peer.pod_cidrs.join(" "),
                peer.public_ips.join(" "),
                self.way(&peer.name),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        rows.iter().fold(String::new(), |mut out, [name, pods, at, by]| {
            let [a, b, c] = widths;
            let _ = writeln!(out, "{name:<a$}  {pods:<b$}  {at:<c$}  {by}");
            out
        })
    }

    /// How the overlay reaches a peer: one word when both families go the same way.
    fn way(&self, peer: &str) -> String {
        let Some(overlay) = &self.overlay else { return "-".into() };
        let Some(status) = overlay.peers.iter().find(|status| status.node == peer) else { return "-".into() };
        let word = |path: &overlay::PathStatus| match path.mode {
            overlay::Mode::Vxlan => "vxlan",
            overlay::Mode::Gateway => "route",
            overlay::Mode::Unreachable => "unreachable",
        };
        let mut words: Vec<&str> = [&status.ipv4, &status.ipv6].into_iter().flatten().map(word).collect();
        words.dedup();
        words.join(" ")
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles")]
    pub fn metrics(&self, metrics: &mut Metrics) {
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let version = [("version", self.version)];
        metrics.gauge("corten_netd_info", "The daemon's version.", &[(&version, 1.0)]);
        metrics.gauge(
            "corten_netd_ready",
            "Pods can talk to other nodes' (1) or not yet (0).",
            &[(&[], flag(self.ready))],
        );
        metrics.gauge(
            "corten_netd_problems",
            "What `corten-netd status` lists as problems.",
            &[(&[], self.problems.len() as f64)],
        );
        if let Some(nodes) = &self.nodes {
            metrics.gauge(
                "corten_netd_peers",
                "Other nodes that traffic may go to.",
                &[(&[], nodes.peers.len() as f64)],
            );
            metrics.gauge(
                "corten_netd_nodes_left_out",
                "Nodes that get no traffic.",
                &[(&[], nodes.left_out.len() as f64)],
            );
            metrics.gauge(
                "corten_netd_source_fault",
                "The list of nodes is old (1).",
                &[(&[], flag(nodes.fault.is_some()))],
            );
        }
        if let Some(fastpath) = &self.fastpath {
            fastpath.metrics(metrics);
        }
        if let Some(services) = &self.services {
            services.metrics(metrics);
        }
        if let Some(overlay) = &self.overlay {
            metrics.counter(
                "corten_netd_overlay_passes_total",
                "Comparisons with the kernel.",
                &[(&[], overlay.passes as f64)],
            );
            metrics.counter(
                "corten_netd_overlay_changes_total",
                "Passes that changed something.",
                &[(&[], overlay.changes as f64)],
            );
            metrics.gauge(
                "corten_netd_overlay_pass_seconds",
                "Time that the last comparison took.",
                &[(&[], overlay.last_pass_ms as f64 / 1000.0)],
            );
            if let Some(mtu) = overlay.pod_mtu {
                metrics.gauge("corten_netd_pod_mtu_bytes", "MTU of pods.", &[(&[], f64::from(mtu))]);
            }
        }
    }
}
