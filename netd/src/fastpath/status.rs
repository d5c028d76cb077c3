//! What `corten-netd status` and the metrics say of the fast path.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use corten_ebpf::datapath::{Hook, Reason};
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::endpoints::LeftOut;
use super::events::hook_name;
use super::nodes::{Mode, Nodes, Unserved};
use super::probe::Decision;
use crate::metrics::Metrics;

/// Lines of who is left out, for a terminal.
const SHOWN: usize = 20;

/// After a pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    pub on: bool,
    /// Why it is off.
    pub why: Vec<String>,
    /// Rules of others that `fastpath = on` goes past.
    pub overrides: Vec<String>,
    /// `tcx` or `clsact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_by: Option<&'static str>,
    pub endpoints: Vec<EndpointStatus>,
    pub nodes: Vec<NodeStatus>,
    pub left_out: Vec<LeftOutStatus>,
    /// What failed in the last pass and is tried again.
    pub errors: Vec<String>,
    /// Passes since the start, and how many of them changed something.
    pub passes: u64,
    pub changes: u64,
    pub last_pass_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    pub address: IpAddr,
    pub veth: String,
    pub mac: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    pub pod_cidr: String,
    pub mode: &'static str,
    pub public_ip: IpAddr,
    pub next_hop: IpAddr,
    pub mtu: u16,
}

/// A pod or a node that goes the kernel's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutStatus {
    /// `pod veth1 10.244.1.7`, `node b 10.244.2.0/24`.
    pub what: String,
    pub why: String,
}

impl From<&LeftOut> for LeftOutStatus {
    fn from(left_out: &LeftOut) -> Self {
        let address = left_out.address.map(|a| format!(" {a}")).unwrap_or_default();
        Self { what: format!("pod {}{address}", left_out.veth), why: left_out.why.to_string() }
    }
}

impl From<&Unserved> for LeftOutStatus {
    fn from(unserved: &Unserved) -> Self {
        let Unserved { node, pod_cidr, why } = unserved;
        Self { what: format!("node {node} {pod_cidr}"), why: why.to_string() }
    }
}

impl Status {
    pub(super) fn off(decision: Decision) -> Self {
        Self { on: false, why: decision.why, overrides: decision.overrides, ..Self::default() }
    }
}

pub(super) fn nodes(nodes: &Nodes) -> Vec<NodeStatus> {
    let one = |(pod_cidr, entry): (&IpNetwork, &super::nodes::NodeEntry)| NodeStatus {
        pod_cidr: pod_cidr.to_string(),
        mode: match entry.mode {
            Mode::Gateway => "gateway",
            Mode::Vxlan { .. } => "vxlan",
        },
        public_ip: entry.public_ip,
        next_hop: entry.next_hop,
        mtu: entry.mtu,
    };
    nodes.entries.iter().map(one).collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.attached_by.map(|by| format!(" (by {by})")).unwrap_or_default();
        writeln!(f, "fast path: {}{by}", if self.on { "on" } else { "off" })?;
        for why in &self.why {
            writeln!(f, "  off because {why}")?;
        }
        for rule in &self.overrides {
            writeln!(f, "  goes past: {rule}")?;
        }
        if self.on {
            writeln!(f, "  {} pod addresses, {} node ranges", self.endpoints.len(), self.nodes.len())?;
        }
        for LeftOutStatus { what, why } in self.left_out.iter().take(SHOWN) {
            writeln!(f, "  not served: {what}: {why}")?;
        }
        if let Some(more @ 1..) = self.left_out.len().checked_sub(SHOWN) {
            writeln!(f, "  not served: {more} more (-o json lists them)")?;
        }
        for error in &self.errors {
            writeln!(f, "  failed, tried again: {error}")?;
        }
        Ok(())
    }
}

/// Packets since the maps were made.
pub type Counters = Vec<(Hook, Reason, u64)>;

/// All that is told: for `corten-netd status` and the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub status: Status,
    /// Program → what became of packets → how many.
    pub packets: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    #[serde(skip)]
    counters: Counters,
}

impl Report {
    pub fn new(status: Status, counters: Counters) -> Self {
        let mut packets: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (hook, reason, count) in &counters {
            packets.entry(hook_name(*hook)).or_default().insert(reason.name(), *count);
        }
        Self { status, packets, counters }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        self.counters.iter().try_for_each(|(hook, reason, packets)| {
            writeln!(f, "  {:<9} {:<7} {:<15} {packets}", hook_name(*hook), way(*reason), reason.name())
        })
    }
}

fn way(reason: Reason) -> &'static str {
    match reason {
        Reason::Dropped => "dropped",
        _ if reason.is_fast() => "fast",
        _ => "kernel",
    }
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles")]
    pub fn metrics(&self, metrics: &mut Metrics) {
        let Self { status, counters, .. } = self;
        let on = f64::from(u8::from(status.on));
        metrics.gauge("corten_netd_fastpath_on", "The eBPF fast path is on.", &[(&[], on)]);
        let number = |n: usize| n as f64;
        metrics.gauge(
            "corten_netd_fastpath_entries",
            "Pod addresses and node ranges that the fast path serves, and pods and nodes it leaves to the kernel.",
            &[
                (&[("kind", "endpoint")], number(status.endpoints.len())),
                (&[("kind", "node")], number(status.nodes.len())),
                (&[("kind", "left-out")], number(status.left_out.len())),
            ],
        );
        let labels = |(hook, reason, _): &(Hook, Reason, u64)| {
            [("hook", hook_name(*hook)), ("way", way(*reason)), ("reason", reason.name())]
        };
        let labels: Vec<[(&str, &str); 3]> = counters.iter().map(labels).collect();
        let packets = counters.iter().map(|(_, _, packets)| *packets as f64);
        let samples: Vec<_> = labels.iter().map(<[_; 3]>::as_slice).zip(packets).collect();
        metrics.counter(
            "corten_netd_fastpath_packets_total",
            "Packets seen by the fast path's programs, by what became of them.",
            &samples,
        );
        metrics.counter(
            "corten_netd_fastpath_passes_total",
            "Times that maps and links were compared with what they should be.",
            &[(&[], status.passes as f64)],
        );
        metrics.gauge(
            "corten_netd_fastpath_pass_seconds",
            "Time that the last comparison took.",
            &[(&[], status.last_pass_us as f64 / 1e6)],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        vec![(Hook::FromPod, Reason::Vxlan, 7), (Hook::FromNic, Reason::Dropped, 1)]
    }

    #[test]
    fn the_text_says_why_and_who_is_left_out() {
        let status = Status {
            why: vec!["fastpath = off".into()],
            left_out: vec![LeftOutStatus { what: "pod veth1".into(), why: "it has no address yet".into() }],
            ..Status::default()
        };
        assert_eq!(
            status.to_string(),
            "fast path: off\n  off because fastpath = off\n  not served: pod veth1: it has no address yet\n"
        );
        let left_out = LeftOutStatus { what: "node b".into(), why: "x".into() };
        let many = Status { left_out: vec![left_out; 23], ..Status::default() };
        assert!(many.to_string().ends_with("  not served: 3 more (-o json lists them)\n"), "{many}");
        let on = Status { on: true, attached_by: Some("tcx"), ..Status::default() };
        assert_eq!(on.to_string(), "fast path: on (by tcx)\n  0 pod addresses, 0 node ranges\n");
        let report = Report::new(Status { on: true, ..Status::default() }, counters());
        let lines = "  from-pod  fast    vxlan           7\n  from-nic  dropped dropped         1\n";
        assert!(report.to_string().ends_with(lines), "{report}");
        assert_eq!(serde_json::to_value(&report).expect("JSON")["packets"]["from-pod"]["vxlan"], 7);
    }

    #[test]
    fn the_numbers_are_prometheus() {
        let mut text = Metrics::default();
        Report::new(Status { on: true, ..Status::default() }, counters()).metrics(&mut text);
        let text = text.into_text();
        let line = "corten_netd_fastpath_packets_total{hook=\"from-pod\",way=\"fast\",reason=\"vxlan\"} 7\n";
        assert!(text.contains(line) && text.contains("corten_netd_fastpath_on 1\n"), "{text}");
    }
}
