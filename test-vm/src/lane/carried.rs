//! That the fast path is not only on: the counters of its programs grow by the packets that were sent.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::board::{Board, Verdict};
use super::scene::{Scene, first_pod, server_of};
use crate::cluster::netd::{self, Backend};
use crate::cluster::{Family, Node, Place, probe};

/// Of the packets, in percent: the first ones of a flow may go the kernel's way, while neighbours are found.
const MOST: u64 = 90;
const MILLIS: u64 = 200;

pub fn rows(board: &mut Board, group: &str, scene: &Scene) {
    let across = match scene.setup.backend {
        Backend::Vxlan => "vxlan",
        Backend::HostGw => "gateway",
    };
    for family in Family::BOTH {
        board.row(format!("{group}, {family}: counted on the fast path, same node"), || {
            let node = scene.node(1);
            let to = node.pods.get(1).context("node 1 has two pods")?;
            // Request and answer leave a pod of the same node.
            carried(&first_pod(node)?.place, server_of(to, family)?, &[(node, "from-pod", "local", 2)])
        });
        board.row(format!("{group}, {family}: counted on the fast path, other node"), || {
            if scene.setup.backend == Backend::Vxlan && family == Family::V6 {
                return Ok(Verdict::Skipped(
                    "IPv6 over vxlan is left to the kernel: see left_out in the status".into(),
                ));
            }
            let (near, far) = (scene.node(1), scene.node(2));
            let expected = [
                (near, "from-pod", across, 1),
                (far, "from-nic", across, 1),
                (far, "from-pod", across, 1),
                (near, "from-nic", across, 1),
            ];
            carried(&first_pod(near)?.place, server_of(first_pod(far)?, family)?, &expected)
        });
    }
}

/// Plays round trips; each counter has to grow by its number of packets a round trip.
fn carried(from: &Place, to: SocketAddr, expected: &[(&Node, &str, &str, u64)]) -> Result<Verdict> {
    let packets = || expected.iter().map(|(node, ..)| packets(node)).collect::<Result<Vec<_>>>();
    let before = packets()?;
    let counted = probe::rounds(from, to, MILLIS, None, false)?;
    let after = packets()?;
    for (((node, program, reason, times), before), after) in expected.iter().zip(before).zip(after) {
        let count = |all: &Value, reason: &str| all[program][reason].as_u64().unwrap_or(0);
        let wanted = counted.count as u64 * times * MOST / 100;
        let grown = count(&after, reason) - count(&before, reason);
        if grown < wanted {
            let reasons = after[program].as_object().into_iter().flatten();
            let grew =
                reasons.map(|(name, _)| format!("{name} {}", count(&after, name) - count(&before, name)));
            let grew = grew.collect::<Vec<_>>().join(", ");
            bail!("{}, {program}: {reason} did not grow by {wanted}; grown: {grew}", node.name());
        }
    }
    Ok(Verdict::Passed(format!("{} round trips", counted.count)))
}

fn packets(node: &Node) -> Result<Value> {
    Ok(netd::status(node)?["fastpath"]["packets"].take())
}
