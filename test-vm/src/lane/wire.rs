//! Wire compatibility: node 3 has no line of ours between its pods and the wire. Its tunnel, neighbours, forwarding
//! entries, routes and rules are typed by hand as flanneld makes them; the others run corten-netd.

use anyhow::{Context, Result};
use serde_json::json;

use super::board::{Board, Verdict};
use super::matrix::{attempt, pod_to_pod};
use super::scene::members;
use crate::cluster::netd::{self, Backend, Setup};
use crate::cluster::{Cluster, Family, Wire, by_hand, chain, eventually};

pub fn rows(board: &mut Board, group: &str, backend: Backend, fast_path: &'static str) {
    let mut cluster = None;
    board.row(format!("{group}: beside a node set up by hand as flanneld does"), || {
        cluster = Some(mixed(backend, fast_path)?);
        Ok(Verdict::Passed("2 nodes with netd, 1 by hand".into()))
    });
    let Some(cluster) = cluster else { return };
    for family in Family::BOTH {
        board.row(format!("{group}, {family}: pods of both kinds of nodes reach each other"), || {
            attempt(&pod_to_pod(&cluster, family, false)?)
        });
    }
}

fn mixed(backend: Backend, fast_path: &'static str) -> Result<Cluster> {
    let mut cluster = Cluster::new(&format!("wire-{}-{fast_path}", backend.name()), 3, Wire::Switch)?;
    let mut members = members(&cluster);
    let ours = if backend == Backend::Vxlan {
        let peer = by_hand::vxlan_devices(cluster.node(3))?;
        members[2].vtep = Some(peer.vtep);
        1450
    } else {
        1500
    };
    by_hand::masquerade(cluster.node(3))?;
    by_hand::subnet_env(cluster.node(3), ours)?;
    let setup = Setup { backend, fast_path };
    for index in [1, 2] {
        netd::start(cluster.node_mut(index), &setup, &members)?;
    }
    for index in [1, 2] {
        netd::wait_ready(cluster.node_mut(index))?;
        let node = cluster.node(index);
        match backend {
            Backend::Vxlan => {
                let vtep = eventually("the tunnel devices are there", netd::SETTLE, || {
                    Ok([by_hand::mac(node, "flannel.1")?, by_hand::mac(node, "flannel-v6.1")?])
                })?;
                by_hand::vxlan_peer(cluster.node(3), &by_hand::Peer { index, vtep })?;
            }
            Backend::HostGw => by_hand::host_gw_peer(cluster.node(3), index)?,
        }
    }
    for index in [1, 2, 3] {
        let conflist = if index == 3 { chain::bridge(3, ours) } else { chain::flannel() };
        for _ in 0..2 {
            let node = cluster.node_mut(index);
            node.add_serving_pod(&conflist, &json!({})).with_context(|| format!("a pod of node {index}"))?;
        }
        if index < 3 && fast_path == "on" {
            netd::wait_fast(cluster.node(index))?;
        }
    }
    Ok(cluster)
}
